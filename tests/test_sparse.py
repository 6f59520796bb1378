"""Holes stay holes."""

import os

import pytest

import sypy
from trees import WHEN, assert_same, build, set_mtime, snapshot

MIB = 1 << 20
SHAPES = {
    "hole first": (4 * MIB, {3 * MIB: b"end"}),
    "hole last": (4 * MIB, {0: b"start"}),
    "hole in the middle": (4 * MIB, {0: b"start", 4 * MIB - 3: b"end"}),
    "nothing but a hole": (4 * MIB, {}),
    "many holes": (16 * MIB, {n * MIB: b"x" * 5000 for n in range(16)}),
    "odd size": (3 * MIB + 12345, {MIB: b"y" * 70_000}),
}


def write_sparse(path, size, pieces):
    with open(path, "wb") as file:
        file.truncate(size)
        for offset, data in pieces.items():
            file.seek(offset)
            file.write(data)
        file.flush()
        os.fsync(file.fileno())
    set_mtime(path, WHEN)
    if os.stat(path).st_blocks * 512 >= size:
        pytest.skip("this file system keeps no holes")


def allocated(path) -> int:
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)
    return os.stat(path).st_blocks * 512


@pytest.mark.parametrize("shape", SHAPES)
def test_holes_stay_holes(src, dst, shape):
    src.mkdir()
    write_sparse(src / "f", *SHAPES[shape])
    set_mtime(src, WHEN)
    sypy.sync(f"{src}/", f"{dst}/")
    assert_same(src, dst)
    assert allocated(dst / "f") <= allocated(src / "f") + 65536


@pytest.mark.parametrize("shape", ["hole last", "many holes"])
def test_holes_stay_holes_across_file_systems(src, shm_path, shape):
    src.mkdir()
    write_sparse(src / "f", *SHAPES[shape])
    sypy.sync(f"{src}/", f"{shm_path}/dst/")
    assert_same(src, shm_path / "dst")
    assert allocated(shm_path / "dst/f") <= allocated(src / "f") + 65536
    sypy.sync(f"{shm_path}/dst/", f"{src.parent}/back/")
    assert_same(src, src.parent / "back")
    assert allocated(src.parent / "back/f") <= allocated(src / "f") + 65536


def test_a_hole_that_replaces_data_reads_as_zeros(src, dst):
    src.mkdir()
    write_sparse(src / "f", 4 * MIB, {MIB: b"x"})
    build(dst, {"f": b"\xff" * (4 * MIB)})
    sypy.sync(f"{src}/", f"{dst}/", checksum=True)
    assert snapshot(dst)["f"]["content"] == snapshot(src)["f"]["content"]


def test_holes_are_filled_when_not_wanted(src, dst):
    src.mkdir()
    write_sparse(src / "f", 4 * MIB, {MIB: b"x"})
    sypy.sync(f"{src}/", f"{dst}/", sparse=False)
    assert snapshot(dst)["f"]["content"] == snapshot(src)["f"]["content"]
    assert allocated(dst / "f") >= 4 * MIB


def test_a_huge_hole_takes_no_time_and_no_space(src, dst):
    src.mkdir()
    with open(src / "f", "wb") as file:
        file.truncate(1 << 40)
        file.seek(1 << 39)
        file.write(b"in the middle of nowhere")
    stats = sypy.sync(f"{src}/", f"{dst}/", timeout=20)
    assert stats.files_created == 1
    with open(dst / "f", "rb") as file:
        file.seek(1 << 39)
        assert file.read(24) == b"in the middle of nowhere"
    assert os.stat(dst / "f").st_size == 1 << 40 and allocated(dst / "f") < MIB
