"""The tasks that acceptance tests run; workers load these files by their path."""
