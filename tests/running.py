"""Runs sypy in processes of their own: with fewer privileges, smaller limits, under strace, to be killed."""

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent
PYTHON_CLI = [sys.executable, "-m", "sypy"]
NO_TRACEBACK = ("panicked", "PanicException", "Traceback (most recent call last)", "RUST_BACKTRACE")


def with_means(**means) -> list[str]:
    """A prefix for a command: `unprivileged=True`, `nofile=64`, `umask=0o077`, `fsize=1 << 20`."""
    return [sys.executable, str(HERE / "launch.py"), json.dumps(means)] if means else []


def run(command, *, timeout=60, **kw) -> subprocess.CompletedProcess:
    """Runs to the end; names that are not UTF-8 survive in the output."""
    done = subprocess.run(
        [os.fspath(part) for part in command],
        capture_output=True, text=True, encoding="utf-8", errors="surrogateescape", timeout=timeout, check=False, **kw,
    )  # fmt: skip
    for word in NO_TRACEBACK:
        assert word not in done.stderr, done.stderr
    return done


@contextmanager
def started(command, **kw):
    """A process that is running; killed at the end if it still is."""
    process = subprocess.Popen(
        [os.fspath(part) for part in command],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, start_new_session=True, **kw,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def sync_in_child(source, dest, *, prefix=(), means=None, timeout=60, **options):
    """`sypy.sync` in a Python process of its own; returns its stats or raises its exception."""
    request = pickle.dumps((os.fspath(source), os.fspath(dest), options))
    command = [*prefix, *with_means(**(means or {})), sys.executable, str(HERE / "running.py")]
    done = subprocess.run(command, input=request, capture_output=True, timeout=timeout, check=False)
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    outcome = pickle.loads(done.stdout)
    if isinstance(outcome, BaseException):
        raise outcome
    return outcome


def sync_unprivileged(source, dest, **options):
    """`sypy.sync` held to file permissions, also when the tests run as root."""
    return sync_in_child(source, dest, means={"unprivileged": True}, **options)


def wait_until(condition: Callable[[], object], timeout: float = 10.0, what: str = "the awaited state") -> None:
    """Waits for a condition on a real process; fails loudly when it never comes."""
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, f"{what} did not come within {timeout} s"
        time.sleep(0.005)


def _child() -> None:
    source, dest, options = pickle.load(sys.stdin.buffer)
    import sypy

    try:
        outcome = sypy.sync(source, dest, **options)
    except (sypy.SyncError, OSError, ValueError) as error:
        outcome = error
    sys.stdout.buffer.write(pickle.dumps(outcome))


if __name__ == "__main__":
    _child()
