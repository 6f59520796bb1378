"""The command line in this process: the same as the native one."""

from __future__ import annotations

import sys

from . import _sypy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

INTERRUPTED = 130


def main(argv: Sequence[str | bytes] | None = None) -> int:
    """Run a command line and return its exit code.

    `argv` is what follows the program's name; `None`, the default, takes that of this process. Exit codes: 0 done,
    1 usage, 23 some items failed, 24 some vanished, 25 refused to delete so much, 130 interrupted (129 by SIGHUP,
    143 by SIGTERM). While it runs in the main thread, SIGTERM and SIGHUP stop it as Ctrl-C does, unless they have
    handlers or are ignored already.

    >>> main(["--version"])
    0
    """
    import signal

    arguments = sys.argv[1:] if argv is None else argv
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()  # The engine writes beside Python's buffers.
    replaced = []
    caught = 0

    def stop(number: int, frame: object) -> None:
        nonlocal caught
        caught = number
        raise KeyboardInterrupt

    try:
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) == signal.SIG_DFL:
                try:
                    signal.signal(number, stop)
                except ValueError:  # Only the main thread may.
                    break
                replaced.append(number)
        code = _sypy.main(["sypy", *arguments])
    except KeyboardInterrupt:
        code = INTERRUPTED
    finally:
        for number in replaced:
            signal.signal(number, signal.SIG_DFL)
    return 128 + caught if caught and code == INTERRUPTED else code


def script() -> NoReturn:
    """Run this process's command line and exit."""
    sys.exit(main())
