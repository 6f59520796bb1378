"""Is a result right? Names, sizes, contents, times and modes, counted by kind of fault."""

from __future__ import annotations

import os
import stat
import zlib
from collections import Counter
from collections.abc import Callable, Collection
from pathlib import Path

# A tool that leaves these has still done its work; it is remarked, not counted as wrong.
REMARKS = frozenset({"folder mtime"})
SAMPLE = 50  # the contents of one file in so many are compared, and of all changed ones


def tree(root: Path) -> dict[str, os.stat_result]:
    """Every entry below `root` by key; a folder's key ends in a slash, the root's own is ``/``."""
    found, todo = {"/": os.stat(root)}, [""]
    while todo:
        prefix = todo.pop()
        with os.scandir(root / prefix) as entries:
            for entry in entries:
                key = prefix + entry.name
                if entry.is_dir(follow_symlinks=False):
                    key += "/"
                    todo.append(key)
                found[key] = entry.stat(follow_symlinks=False)
    return found


def sampled(key: str) -> bool:
    return zlib.crc32(key.encode()) % SAMPLE == 0


def faults(source: Path, dest: Path, must_read: Collection[str]) -> dict[str, int]:
    """Differences between `dest` and `source`: a count for each kind, empty if all is right."""
    there, bad = tree(dest), Counter[str]()
    wanted = tree(source)
    for key, want in wanted.items():
        got = there.pop(key, None)
        folder = key.endswith("/")
        what = "folder " if folder else ""
        if got is None:
            bad[what + "missing"] += 1
            continue
        if stat.S_IFMT(want.st_mode) != stat.S_IFMT(got.st_mode):
            bad["kind"] += 1
            continue
        bad[what + "mode"] += want.st_mode != got.st_mode
        bad[what + "mtime"] += want.st_mtime_ns != got.st_mtime_ns
        if folder:
            continue
        if want.st_size != got.st_size:
            bad["size"] += 1
        elif key in must_read or sampled(key) or len(wanted) == 2:  # 2: the root and one file
            bad["content"] += not same_bytes(source / key, dest / key)
    bad["extra"] = len(there)
    return {kind: count for kind, count in bad.items() if count}


def same_bytes(one: Path, two: Path) -> bool:
    with open(one, "rb", buffering=0) as a, open(two, "rb", buffering=0) as b:
        while True:
            left, right = a.read(1 << 20), b.read(1 << 20)
            if left != right:
                return False
            if not left:
                return True


def totals(root: Path) -> tuple[int, int]:
    """Number of files below `root` and their size in bytes; for trees too large to compare here."""
    files = size = 0
    for folder, _, names in os.walk(root):
        for name in names:
            files += 1
            size += os.lstat(os.path.join(folder, name)).st_size
    return files, size


def plant(source: Path, dest: Path, which: int) -> tuple[str, Callable[[], bool]]:
    """Flip one bit of a file in `dest` and keep its size and mtime: only its content shows it.

    Returns the file's key, and a function that says whether the flip is still there and undoes it.
    """
    files = sorted(key for key in tree(source) if not key.endswith("/"))
    chosen = [key for key in files if sampled(key)] or files
    key = chosen[which % len(chosen)]
    path = dest / key
    before = os.stat(path)
    at = before.st_size // 2
    with open(source / key, "rb") as f:
        f.seek(at)
        good = f.read(1)

    def put(byte: bytes) -> None:
        with open(path, "r+b") as f:
            f.seek(at)
            f.write(byte)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    def undo() -> bool:
        with open(path, "rb") as f:
            f.seek(at)
            if f.read(1) == good:
                return False
        put(good)
        return True

    put(bytes([good[0] ^ 1]))
    return key, undo
