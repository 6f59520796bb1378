"""The tools under test: how each is found, and how it is told to do a step.

``sy`` is our native command and ``sypy`` our package called from Python; the others are peers. A
tool that has no way to do a step returns ``None`` for it and is left out of that step.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from places import HOME, BenchError

OURS = frozenset({"sy", "sypy"})
SY_PYTHON = "sy-python==0.2.4"
SY_PYTHON_VENV = HOME / "venv-sy-python"  # a venv of its own: it is imported as sypy, too

STEPS = {
    "copy": "destination is empty",
    "noop": "nothing changed",
    "cksum": "compare contents; one bit of one copy was flipped behind the tool's back",
    "cksum2": "the same again, with a bit of another file",
    "chg": "1 % of the files changed (of a big file: 1 % of its 64 KiB blocks)",
    "del": "a fifth of the files is gone from the source, and has to go from the copy",
}


@dataclass(frozen=True)
class Job:
    """One timed step from the contents of `src` into the existing folder `dst`."""

    step: str
    src: Path
    dst: Path

    @property
    def checksum(self) -> bool:
        return self.step in ("cksum", "cksum2")

    @property
    def delete(self) -> bool:
        return self.step == "del"

    @property
    def slashed(self) -> list[str]:
        """Source and destination with the slash that means "the contents of"."""
        return [f"{self.src}/", f"{self.dst}/"]


Command = Callable[[Job], "list[str] | None"]


@dataclass(frozen=True)
class Tool:
    name: str
    version: str
    command: Command


def options(wanted: dict[str, bool]) -> list[str]:
    return [option for option, on in wanted.items() if on]


def sy(path: str) -> Command:
    return lambda job: [
        path,
        *options({"--checksum": job.checksum, "--delete": job.delete}),
        *job.slashed,
    ]


def sy_crate(path: str) -> Command:
    """The crate of that name: without -a it keeps no modes."""
    return lambda job: [
        path, "-q", "-a",
        *options({"--checksum": job.checksum, "--delete": job.delete}),
        *options({"--force-delete": job.delete}),
        *job.slashed,
    ]  # fmt: skip


def python_sync(python: str) -> Command:
    """``sypy.sync`` in a fresh interpreter: ours, or sy-python's in its own venv."""

    def command(job: Job) -> list[str]:
        src, dst = job.slashed
        extra = ", checksum=True" * job.checksum + ", delete=True" * job.delete
        call = f"sypy.sync({src!r}, {dst!r}{extra})"
        return [python, "-c", f"import sys, sypy; sys.exit(not {call}.success)"]

    return command


def rsync(path: str) -> Command:
    return lambda job: [
        path, "-a",
        *options({"--checksum": job.checksum, "--delete": job.delete}),
        *job.slashed,
    ]  # fmt: skip


def rclone(path: str) -> Command:
    return lambda job: [
        path, "sync" if job.delete else "copy", "--metadata",
        *options({"--checksum": job.checksum}),
        *job.slashed,
    ]  # fmt: skip


def cp(path: str) -> Command:
    """``cp -a`` compares nothing; ``-u``, which looks at mtimes, lets it do two more steps."""

    def command(job: Job) -> list[str] | None:
        flags = {"copy": "-a", "noop": "-au", "chg": "-au"}.get(job.step)
        return [path, flags, f"{job.src}/.", f"{job.dst}/"] if flags else None

    return command


def copytree(python: str) -> Command:
    def command(job: Job) -> list[str] | None:
        call = f"shutil.copytree({str(job.src)!r}, {str(job.dst)!r}, dirs_exist_ok=True)"
        return [python, "-c", f"import shutil; {call}"] if job.step == "copy" else None

    return command


def first_line(*argv: str) -> str:
    """What a tool says of its version; empty when it can't be started."""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=20, stdin=subprocess.DEVNULL, cwd="/")
    except (OSError, subprocess.TimeoutExpired):
        return ""
    line = next(iter(done.stdout.splitlines()), "") if done.returncode == 0 else ""
    return " ".join(line.split())


def native(path: str) -> bool:
    """Is it a compiled program? (A package may install a Python script of the same name.)"""
    with open(path, "rb") as f:
        return f.read(2) != b"#!"


def on_path(name: str) -> list[str]:
    """All programs of that name, ours below BENCH_HOME last."""
    folders = [*os.get_exec_path(), str(HOME / "bin")]
    paths = (shutil.which(name, path=folder) for folder in folders)
    return list(dict.fromkeys(os.path.realpath(path) for path in paths if path))


def find_sy(given: str | None) -> str | None:
    """Our native command: `given`, or SYPY_BIN, or from PATH.

    The crate's command has the same name. One found on PATH is ours only if it knows an option
    that the crate lacks.
    """
    named = given or os.environ.get("SYPY_BIN")
    if named:
        found = shutil.which(named)
        if not found:
            raise BenchError(f"no program at {named}, which --sy or SYPY_BIN names")
        return os.path.realpath(found)
    return next((path for path in on_path("sy") if native(path) and is_ours(path)), None)


def is_ours(path: str) -> bool:
    try:
        text = subprocess.run([path, "--help"], capture_output=True, text=True, timeout=20).stdout
    except (OSError, subprocess.TimeoutExpired):
        return False
    return "--durable" in text


def find(given_sy: str | None) -> tuple[dict[str, Tool], dict[str, str]]:
    """All tools that are here, and for each that is not, why."""
    have: dict[str, Tool] = {}
    lack: dict[str, str] = {}

    def add(name: str, path: str | None, command: Callable[[str], Command], why: str) -> None:
        version = first_line(path, "--version") if path else ""
        if path and version:
            have[name] = Tool(name, version, command(path))
        else:
            lack[name] = why

    ours = find_sy(given_sy)
    add("sy", ours, sy, "build it, and name it with --sy or SYPY_BIN")
    version = first_line(sys.executable, "-c", "import sypy; sypy.sync; print(sypy.__version__)")
    if version:
        have["sypy"] = Tool("sypy", f"sypy {version}", python_sync(sys.executable))
    else:
        lack["sypy"] = "install the package where this Python finds it"
    for name, command in (("rsync", rsync), ("cp", cp)):
        add(name, next(iter(on_path(name)), None), command, "not on PATH")
    have["copytree"] = Tool("copytree", f"Python {sys.version.split()[0]}", copytree(sys.executable))
    python = str(SY_PYTHON_VENV / "bin/python")
    version = first_line(python, "-c", "import sypy; print(sypy.__version__)")
    if version:
        have["sy-python"] = Tool("sy-python", f"sy-python {version}", python_sync(python))
    else:
        lack["sy-python"] = "bench/run peers installs it"
    rclone_path = next(iter(on_path("rclone")), "")
    version = first_line(rclone_path, "version") if rclone_path else ""
    if version:
        have["rclone"] = Tool("rclone", version, rclone(rclone_path))
    else:
        lack["rclone"] = "not on PATH"
    others = (p for p in on_path("sy") if p != ours and native(p) and not is_ours(p))
    add("sy-crate", next(others, None), sy_crate, "no sy of the crate on PATH")
    return have, lack
