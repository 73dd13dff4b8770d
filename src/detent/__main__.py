"""`python -m detent` is `detent`."""

from detent.cli.main import run

if __name__ == "__main__":
    run()
