"""Every snippet of the documentation runs, and prints what it is said to print."""
