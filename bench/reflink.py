"""A 2 GiB file on XFS, where a copy can share the blocks of the original: is it done at once?"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from check import same_bytes
from datasets import dataset
from measure import flush, run
from places import HOME, ROOT, BenchError, empty, tool_env, work
from results import Record, Results
from tools import Job, Tool

IMAGE_SIZE = 6 << 30  # bytes, sparse; 2 GiB of it are written


@contextmanager
def xfs() -> Iterator[Path]:
    """A fresh XFS with reflinks on a loop device; gone again afterwards."""
    if not ROOT:
        raise BenchError("only root on Linux can mount a file system for this")
    image, point = HOME / "reflink.xfs", HOME / "reflink"
    if os.path.ismount(point):  # left by a run that was killed
        subprocess.run(["umount", point], check=True)
    image.unlink(missing_ok=True)
    point.mkdir(parents=True, exist_ok=True)
    try:
        with open(image, "wb") as f:
            f.truncate(IMAGE_SIZE)
        subprocess.run(["mkfs.xfs", "-q", "-f", "-m", "reflink=1", image], check=True)
        subprocess.run(["mount", "-o", "loop", image, point], check=True)
        try:
            yield point
        finally:
            subprocess.run(["umount", point], check=True)  # frees the loop device, too
    except FileNotFoundError:
        raise BenchError("mkfs.xfs is not installed (package xfsprogs)") from None
    finally:
        image.unlink(missing_ok=True)
        point.rmdir()


def measure_reflink(rounds: int, tools: list[Tool], results: Results) -> None:
    """Copy time of each tool and of ``cp --reflink=always`` and ``=never``, in turns."""
    with xfs() as point:
        data, dest = dataset("B", point), point / "copy"
        names = [*(tool.name for tool in tools), "cp --reflink=always", "cp --reflink=never"]
        commands = {tool.name: tool.command(Job("copy", data.root, dest)) for tool in tools}
        for name in names[len(tools) :]:
            commands[name] = [*name.split(), "-a", f"{data.root}/.", f"{dest}/"]
        flush(point)
        free = free_bytes(point)
        for number in range(rounds):
            turn = number % len(names)
            for name in names[turn:] + names[:turn]:
                argv = commands[name]
                if argv is None:
                    continue
                empty(dest)
                home = empty(work() / "home")
                wait_free(point, free)
                used = run(argv, tool_env(home), point / "log")
                taken = free - free_bytes(point)
                if used.code or not same_bytes(data.root / "big.bin", dest / "big.bin"):
                    raise BenchError(f"{name} failed: exit code {used.code}")
                results.write(
                    tool=name, round=number, taken=taken, cpu=round(used.cpu, 5),
                    wall=round(used.wall, 5), flush=round(used.flush, 4),
                )  # fmt: skip
                print(f"{name} round {number}: {used.wall:.4f} s, {taken / 1e6:.1f} MB of disk")


def wait_free(point: Path, wanted: int) -> None:
    """Wait until the space of a deleted copy is free again: XFS does that in the background."""
    for _ in range(200):
        flush(point)
        if free_bytes(point) > wanted - (8 << 20):
            return
        time.sleep(0.1)
    raise BenchError("the file system did not free a deleted copy within 20 s")


def free_bytes(path: Path) -> int:
    free = os.statvfs(path)
    return free.f_bfree * free.f_frsize


def section(records: list[Record]) -> list[str]:
    """The Markdown lines of this measurement."""
    lines = ["| tool | min / median / max ms | MB of disk taken |", "|" + " --- |" * 3]
    for name in dict.fromkeys(r["tool"] for r in records):
        rows = [r for r in records if r["tool"] == name]
        ms = [r["wall"] * 1000 for r in rows]
        lines.append(
            f"| {name} | {min(ms):.1f} / {median(ms):.1f} / {max(ms):.1f} "
            f"| {median(r['taken'] for r in rows) / 1e6:.1f} |"
        )
    return lines
