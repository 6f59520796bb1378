"""The data sets: made once, the same bytes on every machine, and changed in place for a step.

A step that needs a changed source changes the data set itself and puts it back afterwards, as a
user's folder changes between two runs. While it is changed a marker lies beside it, so a data set
that a killed run left behind is made anew.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from places import BenchError, work

MIB = 1 << 20
BLOCK = 64 << 10  # bytes; the unit in which a big file changes
MADE_NS = 1_600_000_000_123_456_789  # mtime of the first file; each next one is a little later
EDITED_NS = 1_700_000_000_987_654_321  # the same for files that a step changed
STEP_NS = 1_000_003
MODES = (0o644, 0o600, 0o755)


@cache
def pool(seed: int) -> bytes:
    """16 MiB of random bytes that small files are cut from."""
    return random.Random(seed).randbytes(16 * MIB)


def spread(number: int, below: int) -> int:
    """A number in [0, below) that looks random and is the same every time."""
    number = (number * 0x9E3779B97F4A7C15 + 0x632BE59BD9B4E019) & 0xFFFFFFFFFFFFFFFF
    return (number >> 29) % below


def few_kib(i: int) -> int:
    """File sizes from 1 to 16 KiB, in bytes."""
    return 1024 + spread(i, 15 * 1024 + 1)


def mostly_empty(i: int) -> int:
    """File sizes for the memory check: 1 KiB for one file in 16, else 0 bytes."""
    return 0 if i % 16 else 1024


def body(i: int, size: int, seed: int) -> bytes:
    start = spread(i + 77, 15 * MIB)
    return pool(seed)[start : start + size]


def small_name(i: int) -> str:
    """A thousand files to a top folder, a hundred to a leaf."""
    return f"part-{i // 1000:04}/{i // 100 % 10}/{i:07}.bin"


def write_small(path: Path, i: int, data: bytes, mtime_ns: int) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.write(fd, data)
        os.fchmod(fd, MODES[i % len(MODES)])
        os.utime(fd, ns=(mtime_ns, mtime_ns))
    finally:
        os.close(fd)


@dataclass(frozen=True)
class Shape:
    """What a data set is: `files` files with sizes from `size`, or one file of `big` bytes."""

    text: str
    files: int = 1
    size: Callable[[int], int] = few_kib
    big: int = 0

    def bytes_about(self) -> int:
        """Disk space it takes, in bytes, rounded up generously."""
        mean = 1024 if self.size is mostly_empty else 13 * 1024
        return self.big + self.files * mean


SHAPES = {
    "As": Shape("5,000 files of 1 to 16 KiB", 5_000),
    "Aq": Shape("10,000 files of 1 to 16 KiB", 10_000),
    "A": Shape("100,000 files of 1 to 16 KiB", 100_000),
    "Bq": Shape("one file of 256 MiB", big=256 * MIB),
    "B": Shape("one file of 2 GiB", big=2048 * MIB),
    "E100k": Shape("100,000 files, most of them empty", 100_000, mostly_empty),
    "E1M": Shape("1,000,000 files, most of them empty", 1_000_000, mostly_empty),
}


@dataclass(frozen=True)
class Dataset:
    """A data set on disk, at `root`."""

    name: str
    shape: Shape
    root: Path

    @property
    def marker(self) -> Path:
        return self.root.with_name(self.root.name + ".changed")

    @contextmanager
    def edited(self) -> Iterator[set[str]]:
        """1 % of the files changed (of a big file: 1 % of its 64 KiB blocks); yields their keys."""
        with self._marked():
            yield from self._edit_big() if self.shape.big else self._edit_small()

    def _edit_small(self) -> Iterator[set[str]]:
        chosen = range(37, self.shape.files, 100)
        for i in chosen:
            longer = i // 100 % 2  # every second one grows, the others keep their size
            data = body(i, self.shape.size(i) + longer, seed=2)
            write_small(self.root / small_name(i), i, data, EDITED_NS + i * STEP_NS)
        yield {small_name(i) for i in chosen}
        for i in chosen:
            data = body(i, self.shape.size(i), seed=1)
            write_small(self.root / small_name(i), i, data, MADE_NS + i * STEP_NS)

    def _edit_big(self) -> Iterator[set[str]]:
        path, old = self.root / "big.bin", {}
        blocks = self.shape.big // BLOCK
        with open(path, "r+b") as f:
            for b in sorted(random.Random(4).sample(range(blocks), blocks // 100)):
                f.seek(b * BLOCK)
                old[b] = f.read(BLOCK)
                f.seek(b * BLOCK)
                f.write(body(b, BLOCK, seed=2))
        os.utime(path, ns=(EDITED_NS, EDITED_NS))
        yield {"big.bin"}
        with open(path, "r+b") as f:
            for b, data in old.items():
                f.seek(b * BLOCK)
                f.write(data)
        os.utime(path, ns=(MADE_NS, MADE_NS))

    @contextmanager
    def shrunk(self) -> Iterator[None]:
        """A fifth of the top folders gone, so a fifth of the files."""
        aside = self.root.with_name(self.root.name + ".aside")
        times = os.stat(self.root)
        with self._marked():
            aside.mkdir()
            for path in sorted(self.root.iterdir())[::5]:
                path.rename(aside / path.name)
            os.utime(self.root, ns=(EDITED_NS, EDITED_NS))
            yield
            for path in aside.iterdir():
                path.rename(self.root / path.name)
            aside.rmdir()
            os.utime(self.root, ns=(times.st_atime_ns, times.st_mtime_ns))

    @contextmanager
    def _marked(self) -> Iterator[None]:
        nested = self.marker.exists()
        self.marker.touch()
        yield  # on an error the marker stays: what is there can't be trusted
        if not nested:
            self.marker.unlink()


def dataset(name: str, where: Path | None = None) -> Dataset:
    """The data set `name`, made on first use (A takes about 20 s, E1M a few minutes)."""
    if name not in SHAPES:
        raise BenchError(f"no data set {name!r}; there are {', '.join(SHAPES)}")
    data = Dataset(name, SHAPES[name], (where or work()) / "data" / name)
    aside = data.root.with_name(name + ".aside")
    if data.root.exists() and not data.marker.exists() and not aside.exists():
        return data
    for leftover in (data.root, aside):
        shutil.rmtree(leftover, ignore_errors=True)
    data.marker.unlink(missing_ok=True)
    make(data)
    return data


def make(data: Dataset) -> None:
    part = data.root.with_name(f".{data.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    free = os.statvfs(part)
    few = free.f_files and free.f_favail < 2.3 * data.shape.files
    if few or free.f_bavail * free.f_frsize < 2 * data.shape.bytes_about():
        raise BenchError(f"not enough room for data set {data.name} and a copy of it at {part.parent}")
    if data.shape.big:
        with open(part / "big.bin", "wb") as f:
            for i in range(data.shape.big // MIB):
                f.write(random.Random(i).randbytes(MIB))
        os.utime(part / "big.bin", ns=(MADE_NS, MADE_NS))
    else:
        for i in range(data.shape.files):
            path = part / small_name(i)
            if i % 100 == 0:
                path.parent.mkdir(parents=True)
            write_small(path, i, body(i, data.shape.size(i), seed=1), MADE_NS + i * STEP_NS)
    for folder, _, _ in os.walk(part, topdown=False):
        os.chmod(folder, 0o755)
        os.utime(folder, ns=(MADE_NS, MADE_NS))
    part.rename(data.root)
