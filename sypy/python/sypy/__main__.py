"""The command line, as `python -m sypy`."""

from ._cli import script

if __name__ == "__main__":
    script()
