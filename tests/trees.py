"""Trees as dicts: build one from a dict, read one back into a dict, say how two differ.

    build(tmp_path / "src", {"a.txt": "text", "empty/": None, "link": Link("a.txt"), "run": File(b"#!", mode=0o755)})
    assert_same(tmp_path / "src", tmp_path / "dst")

Everything works relative to open directories, so that paths may be longer than PATH_MAX, and on any bytes as names.
Whatever has no time of its own gets `WHEN`: what a test writes afterwards differs from it in time.
"""

import dataclasses
import errno
import hashlib
import os
import stat
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

WHEN = 1_700_000_000_123_456_789
TEMPORARY = ".sypy-"


@dataclasses.dataclass(frozen=True)
class File:
    content: bytes | str = b""
    mode: int = 0o644
    mtime_ns: int = WHEN
    xattrs: Mapping[str, bytes] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Dir:
    mode: int = 0o755
    mtime_ns: int = WHEN
    xattrs: Mapping[str, bytes] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Link:
    target: str | bytes
    mtime_ns: int = WHEN


@dataclasses.dataclass(frozen=True)
class Hard:
    """One more name of the file `other`, which stands earlier in the spec."""

    other: str


@dataclasses.dataclass(frozen=True)
class Fifo:
    mode: int = 0o644


Thing = File | Dir | Link | Hard | Fifo | str | bytes | None


@contextmanager
def opened(path, *, dir_fd=None, create=False) -> Iterator[int]:
    """The directory at `path`, walked name by name."""
    parts = [part for part in os.fsencode(path).split(b"/") if part]
    fd = os.open(b"/" if dir_fd is None and os.fsencode(path).startswith(b"/") else b".", os.O_DIRECTORY, dir_fd=dir_fd)
    try:
        for part in parts:
            if create and not _exists(part, fd):
                os.mkdir(part, 0o755, dir_fd=fd)
            inner = os.open(part, os.O_DIRECTORY, dir_fd=fd)
            os.close(fd)
            fd = inner
        yield fd
    finally:
        os.close(fd)


def _exists(name, dir_fd) -> bool:
    try:
        os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def build(root, spec: Mapping[str | bytes, Thing]):
    """Makes the tree; a directory's key ends in a slash (or its value is a `Dir`). Returns `root`."""
    directories: dict[bytes, Dir] = {b"": Dir()}
    with opened(root, create=True) as top:
        for key, thing in spec.items():
            name = os.fsencode(key)
            if isinstance(thing, Dir) or name.endswith(b"/"):
                name = name.rstrip(b"/")
                directories[name] = thing if isinstance(thing, Dir) else Dir()
            folder, _, base = name.rpartition(b"/")
            parts = folder.split(b"/") if folder else []
            for depth in range(len(parts)):
                directories.setdefault(b"/".join(parts[: depth + 1]), Dir())
            with opened(folder, dir_fd=top, create=True) as parent:
                if name in directories:
                    with opened(base, dir_fd=parent, create=True):
                        pass
                else:
                    _make(base, thing, parent, top)
        # Deepest first: what happens below a directory must not change its time any more.
        for name in sorted(directories, key=lambda key: -key.count(b"/") - bool(key)):
            with opened(name, dir_fd=top) as fd:
                for attribute, value in directories[name].xattrs.items():
                    os.setxattr(fd, attribute, value)
                os.fchmod(fd, directories[name].mode)
                os.utime(fd, ns=(WHEN, directories[name].mtime_ns))
    return root


def _make(name: bytes, thing: Thing, parent: int, top: int) -> None:
    if isinstance(thing, str | bytes):
        thing = File(thing)
    if isinstance(thing, File):
        content = thing.content.encode() if isinstance(thing.content, str) else thing.content
        fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600, dir_fd=parent)
        with open(fd, "wb") as file:
            file.write(content)
            file.flush()
            for attribute, value in thing.xattrs.items():
                os.setxattr(fd, attribute, value)
            os.fchmod(fd, thing.mode)
            os.utime(fd, ns=(WHEN, thing.mtime_ns))
    elif isinstance(thing, Link):
        os.symlink(thing.target, name, dir_fd=parent)
        os.utime(name, ns=(WHEN, thing.mtime_ns), dir_fd=parent, follow_symlinks=False)
    elif isinstance(thing, Hard):
        os.link(os.fsencode(thing.other), name, src_dir_fd=top, dst_dir_fd=parent)
    elif isinstance(thing, Fifo):
        os.mkfifo(name, thing.mode, dir_fd=parent)
        os.utime(name, ns=(WHEN, WHEN), dir_fd=parent)
    else:
        raise TypeError(f"{name!r}: {thing!r} is nothing that a tree holds")


KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
}


def snapshot(
    root, *, times=True, modes=True, xattrs=False, hardlinks=False, holes=False, owner=False, untouched=False
) -> dict:
    """What stands below `root`: key → what there is to say about it. `"."` is the root itself.

    `untouched` adds what changes with any write at all: inode and ctime.
    """
    found: dict[str, dict] = {}
    inodes: dict[tuple, list[str]] = {}

    def look(name: str, parent: int, key: str) -> None:
        info = os.stat(name, dir_fd=parent, follow_symlinks=False)
        kind = KINDS[stat.S_IFMT(info.st_mode)]
        node: dict = {"kind": kind}
        found[key] = node
        if modes and kind != "symlink":
            node["mode"] = oct(stat.S_IMODE(info.st_mode))
        if times:
            node["mtime_ns"] = info.st_mtime_ns
        if owner:
            node["owner"] = (info.st_uid, info.st_gid)
        if untouched:
            node["untouched"] = (info.st_ino, info.st_ctime_ns)
        if hardlinks and info.st_nlink > 1 and kind != "directory":
            inodes.setdefault((info.st_dev, info.st_ino), []).append(key)
        if kind.endswith("device"):
            node["device"] = (os.major(info.st_rdev), os.minor(info.st_rdev))
        elif kind == "symlink":
            node["target"] = os.readlink(name, dir_fd=parent)
        elif kind == "file":
            fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=parent)
            with open(fd, "rb") as file:
                if holes:
                    node["holes"] = _holes(fd, info.st_size)
                    node["allocated"] = info.st_blocks * 512
                content = file.read()
                node["content"] = (
                    content if len(content) <= 200 else (len(content), hashlib.sha256(content).hexdigest())
                )
                if xattrs:
                    node["xattrs"] = _xattrs(fd)
        elif kind == "directory":
            fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
            try:
                if xattrs:
                    node["xattrs"] = _xattrs(fd)
                for child in sorted(os.listdir(fd)):
                    look(child, fd, child if key == "." else f"{key}/{child}")
            finally:
                os.close(fd)

    with opened(root) as top:
        look(".", top, ".")
    for names in inodes.values():
        if len(names) > 1:
            for key in names:
                found[key]["hardlinks"] = sorted(names)
    return found


def _xattrs(fd: int) -> dict[str, bytes]:
    return {name: os.getxattr(fd, name) for name in os.listxattr(fd) if name.startswith(("user.", "trusted."))}


def _holes(fd: int, size: int) -> list[tuple[int, int]]:
    """Runs of hole, start and end."""
    holes, at = [], 0
    while at < size:
        start = os.lseek(fd, at, os.SEEK_HOLE)
        if start >= size:
            break
        try:
            at = os.lseek(fd, start, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            at = size
        holes.append((start, at))
    os.lseek(fd, 0, os.SEEK_SET)
    return holes


def difference(expected: Mapping[str, dict], actual: Mapping[str, dict]) -> list[str]:
    """One line for each thing that is not as expected; empty when all is."""
    lines = []
    for key in sorted(expected.keys() | actual.keys()):
        want, have = expected.get(key), actual.get(key)
        name = repr(key) if len(key) < 120 else f"{key[:50]!r}…{key[-50:]!r} ({len(key)} characters)"
        if have is None:
            lines.append(f"missing: {name} ({want['kind']})")
        elif want is None:
            lines.append(f"should not be there: {name} ({have['kind']})")
        else:
            for field in sorted(want.keys() | have.keys()):
                if want.get(field) != have.get(field):
                    lines.append(f"{name}: {field} is {have.get(field)!r}, expected {want.get(field)!r}")
    return lines


def assert_same(source, dest, **what) -> None:
    """The two trees are the same, their roots included, as far as `what` (options of `snapshot`) looks."""
    wrong = difference(snapshot(source, **what), snapshot(dest, **what))
    assert not wrong, "\n".join(wrong[:40])


def keys(root) -> set[str]:
    """The keys of all things below `root`, also while a run is changing it."""
    found: set[str] = set()

    def look(fd: int, prefix: str) -> None:
        for entry in sorted(os.listdir(fd)):
            found.add(prefix + entry)
            try:
                inner = os.open(entry, os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=fd)
            except OSError:
                continue
            try:
                look(inner, f"{prefix}{entry}/")
            finally:
                os.close(inner)

    with opened(root) as top:
        look(top, "")
    return found


def leftovers(root) -> list[str]:
    """Temporary files of ours that still stand somewhere below `root`."""
    return [key for key in keys(root) if key.rpartition("/")[2].startswith(TEMPORARY)]


def is_in_memory(path) -> bool:
    """Is that a place on a tmpfs or the like?"""
    kind = subprocess.run(["stat", "-f", "-c", "%T", path], capture_output=True, text=True, check=False)
    return kind.stdout.strip() in ("tmpfs", "ramfs")


def text(path) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()


def set_mtime(path, mtime_ns: int) -> None:
    os.utime(path, ns=(mtime_ns, mtime_ns), follow_symlinks=False)


def rewrite(path, content: bytes | str, mtime_ns: int | None = None) -> None:
    """Puts other content into a file, in place; keeps its time unless told otherwise."""
    before = os.stat(path).st_mtime_ns
    with open(path, "wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
    set_mtime(path, before if mtime_ns is None else mtime_ns)


def whole(tree: Mapping[str, dict]) -> dict:
    """With times as SFTP tells them."""
    return {key: node | {"mtime_ns": node["mtime_ns"] // 10**9} for key, node in tree.items()}


def assert_alike(source, dest, **what) -> None:
    """The two trees are the same, as far as SFTP tells, and nothing else is left there."""
    wrong = difference(whole(snapshot(source, **what)), whole(snapshot(dest, **what)))
    assert not wrong, "\n".join(wrong)
    assert leftovers(dest) == []
