"""Where the suite works, and the environment that the tools see.

Everything lives below one folder, ``BENCH_HOME`` (default ``~/.cache/sypy-bench``): peers that the
suite installs, and ``fs``, the mount point of a file system of its own. Data sets and copies go to
``BENCH_WORK`` (default ``BENCH_HOME/fs``), into a folder of ours, so nothing else there is touched.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

SUITE = Path(__file__).resolve().parent
HOME = Path(os.environ.get("BENCH_HOME") or "~/.cache/sypy-bench").expanduser().absolute()
FS = HOME / "fs"
IMAGE = HOME / "fs.ext4"
ROOT = sys.platform == "linux" and os.geteuid() == 0


class BenchError(Exception):
    """Something the user can put right; printed as one line."""


def work() -> Path:
    """The folder that holds data sets and copies; made on first use."""
    base = Path(os.environ.get("BENCH_WORK") or FS).expanduser().absolute()
    path = base / "sypy-suite"
    path.mkdir(parents=True, exist_ok=True)
    return path


def roomy(inodes: int, size: int) -> Path:
    """A work folder on a file system with this many free inodes and bytes.

    The benchmark file system is small. Measurements of memory do not depend on the disk, so they
    may fall back to the disk that holds ``BENCH_HOME``.
    """
    for path in (work(), HOME / "roomy"):
        path.mkdir(parents=True, exist_ok=True)
        free = os.statvfs(path)
        counted = free.f_files > 0  # some file systems have no fixed number of inodes
        if (free.f_favail > inodes or not counted) and free.f_bavail * free.f_frsize > size:
            return path
    raise BenchError(f"no room for {inodes:,} files and {size >> 20:,} MiB below {HOME}")


def tool_env(home: Path) -> dict[str, str]:
    """Environment of a tool: an empty home, so that no run profits from an earlier one."""
    settings = ("RCLONE_", "RSYNC_", "SYPY_")  # would change what a tool does
    keep = {k: v for k, v in os.environ.items() if not k.startswith(settings)}
    return keep | {
        "HOME": str(home),
        "XDG_CACHE_HOME": str(home / "cache"),
        "XDG_CONFIG_HOME": str(home / "config"),
        "XDG_STATE_HOME": str(home / "state"),
        "XDG_DATA_HOME": str(home / "data"),
        "RCLONE_CONFIG": "",  # rclone: no config file
        "LC_ALL": "C",
    }


def empty(path: Path) -> Path:
    """Make `path` an empty folder."""
    if path.exists():
        shutil.rmtree(path)
    path.mkdir(parents=True)
    return path


def filesystem(path: Path) -> str:
    """Type of the file system that holds `path`, such as ``ext4``; ``unknown`` off Linux."""
    best, kind = "", "unknown"
    try:
        mounts = Path("/proc/mounts").read_text().splitlines()
    except OSError:
        return kind
    for line in mounts:
        point, fs = line.split()[1:3]
        inside = str(path).startswith(point.rstrip("/") + "/") or str(path) == point
        if inside and len(point) >= len(best):
            best, kind = point, fs
    return kind


def make_fs(gigabytes: int) -> str:
    """Make and mount the suite's own ext4 on a loop device; needs root. Says what it did."""
    if os.path.ismount(FS):
        return f"{FS} is mounted already"
    if not ROOT:
        raise BenchError("only root can make a file system; run without one, or as root on Linux")
    FS.mkdir(parents=True, exist_ok=True)
    if not IMAGE.exists():
        part = IMAGE.with_suffix(".part")
        subprocess.run(["fallocate", "-l", f"{gigabytes}GiB", part], check=True)
        # An inode for every 8 KiB, and all tables written now, not in the middle of a measurement.
        lazy = "lazy_itable_init=0,lazy_journal_init=0"
        subprocess.run(["mkfs.ext4", "-q", "-F", "-i", "8192", "-E", lazy, part], check=True)
        part.rename(IMAGE)
    attach = ["losetup", "--direct-io=on", "--find", "--show", str(IMAGE)]
    device = subprocess.run(attach, check=True, capture_output=True, text=True).stdout.strip()
    subprocess.run(["mount", device, FS], check=True)
    subprocess.run(["losetup", "-d", device], check=True)  # it goes away with the mount
    return f"{FS} is an ext4 of its own, {gigabytes} GiB"


def remove_fs() -> str:
    """Unmount the suite's file system and delete its image, with all that is in it."""
    if os.path.ismount(FS):
        subprocess.run(["umount", FS], check=True)
    IMAGE.unlink(missing_ok=True)
    return f"{FS} is gone"
