"""The command line, as `python -m sypy`."""

from ._cli import script

script()
