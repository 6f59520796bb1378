"""Exchanges pairs of paths again and again, each time in one step: `python swapper.py A B [C D …]`.

Says so with a line once it has begun; ends with its standard input.
"""

import ctypes
import itertools
import os
import select
import sys
from contextlib import suppress

AT_FDCWD = -100
RENAME_EXCHANGE = 2


def exchange(a: str, b: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(AT_FDCWD, os.fsencode(a), AT_FDCWD, os.fsencode(b), RENAME_EXCHANGE) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), a)


def main(*paths: str) -> None:
    pairs = list(zip(paths[::2], paths[1::2], strict=True))
    for round_, (a, b) in enumerate(itertools.cycle(pairs)):
        # The run under test may have deleted or replaced one of the two.
        with suppress(FileNotFoundError):
            exchange(a, b)
        if round_ == len(pairs):
            print("swapping", flush=True)
        if round_ % 64 == 0 and select.select([sys.stdin], [], [], 0)[0]:
            return


if __name__ == "__main__":
    main(*sys.argv[1:])
