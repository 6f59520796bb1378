"""Run one command and measure it: time, CPU, memory, and what it left to be written.

Units: seconds and bytes everywhere.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from places import BenchError

PAGE = os.sysconf("SC_PAGE_SIZE")
TICKS = os.sysconf("SC_CLK_TCK")
RSS_UNIT = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes
LINUX = sys.platform == "linux"


@dataclass(frozen=True)
class Usage:
    """What one command used."""

    wall: float  # s, from start to exit
    user: float  # s of CPU, with all its children
    system: float  # s of CPU in the kernel, with all its children
    rss: int  # bytes, peak of the sum over the process tree
    pss: int  # bytes, the same with shared pages counted once; 0 if not asked for
    flush: float  # s to write out afterwards what the command left in memory
    others: float  # cores that the rest of the machine kept busy meanwhile
    code: int  # exit code; -9 when it ran into the limit

    @property
    def cpu(self) -> float:
        return self.user + self.system


class Sampler(threading.Thread):
    """Watches the memory of a process and its descendants; kills them after `limit` seconds."""

    def __init__(self, pid: int, limit: float, with_pss: bool) -> None:
        super().__init__(daemon=True)
        self.pid, self.limit, self.with_pss = pid, limit, with_pss
        self.rss = self.pss = 0
        self.over = threading.Event()

    def run(self) -> None:
        began = time.monotonic()
        while not self.over.is_set():
            tree = family(self.pid) if LINUX else []
            self.rss = max(self.rss, sum(map(resident, tree)))
            if self.with_pss:
                self.pss = max(self.pss, sum(map(proportional, tree)))
            age = time.monotonic() - began
            if age > self.limit:
                kill(self.pid)
            self.over.wait(0.005 if age < 0.2 else 0.02)


def family(pid: int) -> list[int]:
    """A process and its descendants, by id."""
    found, todo = [], [pid]
    while todo:
        pid = todo.pop()
        found.append(pid)
        try:
            for task in os.listdir(f"/proc/{pid}/task"):
                todo += map(int, Path(f"/proc/{pid}/task/{task}/children").read_text().split())
        except OSError:
            pass  # it has ended
    return found


def resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE
    except (OSError, IndexError):
        return 0


def proportional(pid: int) -> int:
    """Resident bytes, with a page that n processes share counted as one n-th."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def kill(pid: int) -> None:
    """End the process group that `run` started for a command."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def busy() -> float:
    """CPU seconds that the whole machine has used since it started; 0 off Linux."""
    if not LINUX:
        return 0.0
    with open("/proc/stat") as f:
        user, nice, system, _idle, _iowait, irq, softirq = map(int, f.readline().split()[1:8])
    return (user + nice + system + irq + softirq) / TICKS


def own_cpu() -> float:
    t = os.times()
    return t.user + t.system


def run(
    argv: Sequence[str | Path],
    env: Mapping[str, str],
    log: Path,
    limit: float = 900.0,
    with_pss: bool = False,
) -> Usage:
    """Run `argv` in the folder of `log`, its output going there, and measure it.

    `log` is to be on the file system that the command writes to. That is flushed before the start,
    so no command pays for the one before it.
    """
    flush(log.parent)
    own_peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    busy0, own0, began = busy(), own_cpu(), time.perf_counter()
    with open(log, "wb") as out:
        child = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=env,
            cwd=log.parent, start_new_session=True,
        )  # fmt: skip
    sampler = Sampler(child.pid, limit, with_pss)
    sampler.start()
    try:
        _, status, used = os.wait4(child.pid, 0)
    except BaseException:
        kill(child.pid)
        raise
    finally:
        sampler.over.set()
    wall = time.perf_counter() - began
    sampler.join()
    child.returncode = os.waitstatus_to_exitcode(status)
    rest = busy() - busy0 - (own_cpu() - own0) - used.ru_utime - used.ru_stime
    flush0 = time.perf_counter()
    flush(log.parent)
    rss = sampler.rss
    if used.ru_maxrss > own_peak:  # below that it shows this process before exec, not the command
        rss = max(rss, used.ru_maxrss * RSS_UNIT)
    return Usage(
        wall=wall,
        user=used.ru_utime,
        system=used.ru_stime,
        rss=rss,
        pss=sampler.pss,
        flush=time.perf_counter() - flush0,
        others=max(0.0, rest / wall),
        code=child.returncode,
    )


def time_command(argv: Sequence[str], env: Mapping[str, str], folder: Path) -> tuple[float, float]:
    """CPU seconds and wall seconds of a short command, run in `folder` with nothing watching it."""
    null = subprocess.DEVNULL
    began = time.perf_counter()
    child = subprocess.Popen(argv, stdin=null, stdout=null, env=env, cwd=folder)
    _, status, used = os.wait4(child.pid, 0)
    wall = time.perf_counter() - began
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise BenchError(f"{Path(argv[0]).name} failed with exit code {child.returncode}")
    return used.ru_utime + used.ru_stime, wall


def flush(folder: Path) -> None:
    """Write out what the file system of `folder` holds in memory (and not what others hold)."""
    syncfs = getattr(ctypes.CDLL(None), "syncfs", None)
    if syncfs is None:
        os.sync()
        return
    fd = os.open(folder, os.O_RDONLY)
    try:
        if syncfs(fd):
            raise OSError(f"can't flush the file system of {folder}")
    finally:
        os.close(fd)


def drop_caches(folder: Path) -> None:
    """Empty the page cache and the caches of names and inodes; needs root on Linux.

    What is still to be written on the file system of `folder` is written first, or it would stay.
    """
    flush(folder)
    Path("/proc/sys/vm/drop_caches").write_text("3\n")


def read_all(root: Path) -> None:
    """Bring a tree into the page cache: every name, inode and byte."""
    buffer = bytearray(1 << 20)
    for folder, _, names in os.walk(root):
        for name in names:
            with open(os.path.join(folder, name), "rb", buffering=0) as f:
                while f.readinto(buffer):
                    pass


def wait_quiet(limit: float) -> None:
    """Wait until other work takes less than a quarter of a core, `limit` seconds at most."""
    end = time.monotonic() + limit
    while time.monotonic() < end:
        before = busy()
        time.sleep(0.5)
        if busy() - before < 0.125:
            return
