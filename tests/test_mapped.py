"""What is written through memory maps, which shows in a file's times only the first time after its pages were clean."""

import mmap
import os
import threading
import time
from contextlib import contextmanager

import pytest

import sypy
from trees import build, text

LONG_AGO = 0.1  # s; clocks of file systems tick more often

# What is dirty is written out file by file, or, once there were many files, all at a time.
few_or_many = pytest.mark.parametrize("before", [0, 200])


def tree(before):
    return {"d/f": "content"} | {f"a{n}": str(n) for n in range(before)}


@contextmanager
def mapped(path):
    """The bytes of a file, to be changed in place. The page is dirty already, long enough to look settled."""
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0) as content:
        before = os.stat(path)
        content[0] = content[0]
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        time.sleep(LONG_AGO)
        yield content


def changes_are_found(src, dst, content):
    sypy.sync(f"{src}/", f"{dst}/", checksum=True)
    content[0] = ord("C")
    assert sypy.sync(f"{src}/", f"{dst}/", checksum=True).files_updated == 1
    assert text(dst / "d/f") == "Content"


@few_or_many
def test_a_later_write_is_found(src, dst, before):
    build(src, tree(before))
    sypy.sync(f"{src}/", f"{dst}/")
    with mapped(src / "d/f") as content:
        changes_are_found(src, dst, content)


@few_or_many
def test_a_page_that_is_written_to_all_the_time_is_not_trusted(src, mount, before):
    dst = mount("ext4", size="300m", mkfs=["-q", "-F"]) / "dst"
    how = {"checksum": True, "preserve_times": False}
    build(src, tree(before))
    sypy.sync(f"{src}/", f"{dst}/", **how)
    with mapped(src / "d/f") as content:
        # A run may begin by having what is dirty written, which takes a while at the destination.
        (dst.parent / "dirty").write_bytes(bytes(128 << 20))
        over = threading.Event()

        def write_on():
            while not over.wait(0.001):
                content[0] = ord("c")

        writer = threading.Thread(target=write_on)
        writer.start()
        try:
            sypy.sync(f"{src}/", f"{dst}/", **how)
        finally:
            over.set()
            writer.join()
        content[0] = ord("C")
        assert sypy.sync(f"{src}/", f"{dst}/", **how).files_updated == 1
    assert text(dst / "d/f") == "Content"


@pytest.mark.parametrize("kind", ["tmpfs", "ramfs"])
def test_nothing_is_remembered_of_file_systems_without_a_disk(dst, mount, kind):
    src = mount(kind) / "src"
    build(src, {"d/f": "content"})
    sypy.sync(f"{src}/", f"{dst}/")
    with mapped(src / "d/f") as content:
        changes_are_found(src, dst, content)


@pytest.mark.parametrize("kind", ["tmpfs", "ext4"])
@pytest.mark.parametrize("side", ["src", "dst"])
def test_a_file_system_that_is_mounted_within_a_tree_is_read_again(src, dst, mount, bind, kind, side):
    build(src, {"d/f": "content"})
    sypy.sync(f"{src}/", f"{dst}/")
    inner = mount(kind)
    tree = src.parent / side
    build(inner, {"f": "content"})
    os.utime(inner / "f", ns=(0, (src / "d/f").stat().st_mtime_ns))
    bind(inner, tree / "d")
    with mapped(tree / "d/f") as content:
        sypy.sync(f"{src}/", f"{dst}/", checksum=True)
        content[0] = ord("C")
        assert sypy.sync(f"{src}/", f"{dst}/", checksum=True).files_updated == 1
    assert text(dst / "d/f") == text(src / "d/f")
