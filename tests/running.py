"""Runs sypy in processes of their own: with fewer privileges, smaller limits, under strace, to be killed."""

import dataclasses
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

# What a process says of the most memory it took, MiB. That of `getrusage` begins with its parent's.
PEAK = 'int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) >> 10'


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


# What the command line calls differently than Python does.
FLAGS = {"preserve_xattrs": "--xattrs", "preserve_acls": "--acls", "preserve_hardlinks": "--hard-links"}
FLAGS |= {"preserve_owner": "--owner", "preserve_devices": "--devices"}
OPPOSITES = {"preserve_times": "--no-times", "preserve_permissions": "--no-perms", "resume": "--no-resume"}


def arguments(**options) -> list[str]:
    """Options as `sypy.sync` takes them, as flags."""
    flags: list[str] = []
    for name, value in options.items():
        flag = FLAGS.get(name, f"--{name.replace('_', '-')}")
        if name in OPPOSITES:
            flags += [] if value else [OPPOSITES[name]]
        elif isinstance(value, bool):
            flags += [flag] if value else []
        elif isinstance(value, list | tuple):
            flags += [f"{flag}={one}" for one in value]
        elif value is not None:
            flags.append(f"{flag}={value}")
    return flags


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a run told: its events, the last of which are the stats."""

    code: int
    events: list[dict]
    stderr: str

    @property
    def stats(self) -> dict:
        return self.events[-1]

    @property
    def errors(self) -> list[dict]:
        """Of single items; what ended the run is not among them."""
        return [event for event in self.events if event["event"] == "error" and not event["fatal"]]

    @property
    def error(self) -> dict:
        """What ended the run."""
        return next(event for event in self.events if event["event"] == "error" and event["fatal"])

    @property
    def changes(self) -> set[tuple[str, str]]:
        """Key and action of all that was done, or would be."""
        actions = [event for event in self.events if event["event"] == "action" and event["action"] != "skip"]
        return {(event["path"].rstrip("/"), event["action"]) for event in actions}

    def done(self) -> "Outcome":
        """All went well."""
        assert self.code == 0, f"{self.code}: {self.stderr}\n{self.errors}"
        return self


def outcome_of(code: int, stdout: str, stderr: str) -> Outcome:
    return Outcome(code, [json.loads(line) for line in stdout.splitlines()], stderr)


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
