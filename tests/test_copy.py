"""The main job: what stands at the source stands at the destination afterwards."""

import ctypes
import mmap
import os

import pytest

import sypy
from running import run
from trees import WHEN, Dir, File, Link, assert_same, build, keys, leftovers, rewrite, text

PROJECT = {
    "README": "read me",
    "bin/run": File("#!/bin/sh\n", mode=0o755),
    "docs/": None,
    "docs/deep/er/still/page.txt": "page",
    "empty": "",
    "latest": Link("docs/deep"),
    "private/": Dir(mode=0o700),
    "private/key": File("secret", mode=0o600),
}


def test_a_tree_arrives_with_content_modes_and_times(src, dst):
    build(src, PROJECT)
    stats = sypy.sync(f"{src}/", f"{dst}/")
    assert stats.success and not stats.errors
    assert_same(src, dst)


def test_a_second_run_does_nothing(src, dst):
    build(src, PROJECT)
    sypy.sync(f"{src}/", f"{dst}/")
    again = sypy.sync(f"{src}/", f"{dst}/")
    assert (again.files_created, again.files_updated, again.files_deleted) == (0, 0, 0)
    assert (again.dirs_created, again.dirs_deleted, again.files_metadata_updated) == (0, 0, 0)
    assert again.bytes_transferred == 0


def test_a_second_run_leaves_every_inode_as_it_is(src, dst):
    build(src, PROJECT)
    sypy.sync(f"{src}/", f"{dst}/")
    before = {key: os.lstat(dst / key) for key in keys(dst)}
    sypy.sync(f"{src}/", f"{dst}/")
    for key, info in before.items():
        now = os.lstat(dst / key)
        assert (now.st_ino, now.st_ctime_ns) == (info.st_ino, info.st_ctime_ns), key


def test_changed_files_are_updated_and_others_are_not(src, dst):
    build(src, {"same": "same", "longer": "v1", "newer": "v1"})
    sypy.sync(f"{src}/", f"{dst}/")
    rewrite(src / "longer", "version 2")
    rewrite(src / "newer", "v2", WHEN + 10**9)
    stats = sypy.sync(f"{src}/", f"{dst}/")
    assert stats.files_updated == 2
    assert_same(src, dst)


def test_what_the_source_does_not_have_stays(src, dst):
    build(src, {"a": "new"})
    build(dst, {"b": "mine", "d/c": "mine"})
    sypy.sync(f"{src}/", f"{dst}/")
    assert keys(dst) == {"a", "b", "d", "d/c"}


def test_parents_of_the_destination_are_made(src, tmp_path):
    build(src, {"a": "1"})
    sypy.sync(f"{src}/", tmp_path / "not" / "there" / "yet")
    assert text(tmp_path / "not" / "there" / "yet" / "a") == "1"


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097, 65536, 131072, 131073, 1 << 20, (1 << 20) + 1, (8 << 20) + 3])
def test_files_of_every_size_arrive_whole(src, dst, size):
    build(src, {"f": os.urandom(size)})
    stats = sypy.sync(f"{src}/", f"{dst}/")
    assert stats.bytes_transferred == size
    assert_same(src, dst)


def test_an_update_replaces_the_file_and_never_writes_into_it(src, dst):
    build(src, {"f": "new content"})
    build(dst, {"f": "old"})
    with open(dst / "f", encoding="utf-8") as reader:
        sypy.sync(f"{src}/", f"{dst}/")
        assert reader.read() == "old"
    assert text(dst / "f") == "new content"


def test_a_longer_old_file_leaves_no_tail(src, dst):
    build(src, {"f": "short"})
    build(dst, {"f": "x" * 1_000_000})
    sypy.sync(f"{src}/", f"{dst}/")
    assert text(dst / "f") == "short"


def test_copies_across_file_systems(src, shm_path):
    build(src, PROJECT | {"big": os.urandom(3 << 20)})
    sypy.sync(f"{src}/", f"{shm_path}/there/")
    assert_same(src, shm_path / "there")
    sypy.sync(f"{shm_path}/there/", f"{src.parent}/back/")
    assert_same(src, src.parent / "back")


def test_thousands_of_small_files(src, dst):
    build(src, {f"d{n % 40:02}/f{n:04}": str(n) for n in range(2000)})
    stats = sypy.sync(f"{src}/", f"{dst}/")
    assert (stats.files_created, stats.dirs_created) == (2000, 40) or (stats.files_created, stats.dirs_created) == (
        2000,
        41,
    )
    assert_same(src, dst)
    assert not leftovers(dst)


def test_a_directory_with_very_many_entries(src, dst):
    src.mkdir()
    for n in range(12_000):
        (src / f"{n:05}").touch()
    sypy.sync(f"{src}/", f"{dst}/")
    assert sorted(os.listdir(dst)) == sorted(os.listdir(src))


def test_an_empty_source_without_delete_is_no_error(src, dst):
    src.mkdir()
    build(dst, {"a": "mine"})
    assert sypy.sync(f"{src}/", f"{dst}/").success
    assert keys(dst) == {"a"}


@pytest.mark.parametrize("parallel", [1, 2, 64, None])
def test_any_number_of_transfers_at_a_time_gives_the_same_tree(src, dst, parallel):
    build(src, {f"d{n % 7}/{n}": os.urandom(n * 700) for n in range(100)})
    sypy.sync(f"{src}/", f"{dst}/", parallel=parallel)
    assert_same(src, dst)


def test_the_command_line_does_the_same(src, dst, command):
    build(src, PROJECT)
    done = run([*command, f"{src}/", f"{dst}/"])
    assert done.returncode == 0, done.stderr
    assert_same(src, dst)


LARGE = 40 << 20


def pages_in_memory(fd: int) -> int:
    size = os.fstat(fd).st_size
    seen = (ctypes.c_ubyte * -(-size // mmap.PAGESIZE))()
    with mmap.mmap(fd, 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE) as mapped:
        first = ctypes.c_char.from_buffer(mapped)
        failed = ctypes.CDLL(None).mincore(ctypes.c_void_p(ctypes.addressof(first)), ctypes.c_size_t(size), seen)
        del first
    assert not failed
    return sum(page & 1 for page in seen)


@pytest.fixture
def replaced(src, dst):
    """A large file that changed since it was copied, and its old copy, open and in memory."""
    build(src, {"f": os.urandom(LARGE)})
    sypy.sync(f"{src}/", f"{dst}/")
    old = os.open(dst / "f", os.O_RDONLY)
    os.fsync(old)
    os.posix_fadvise(old, 0, 0, os.POSIX_FADV_DONTNEED)
    if pages_in_memory(old):
        pytest.skip("this file system keeps its files in memory")
    os.pread(old, LARGE, 0)
    rewrite(src / "f", os.urandom(LARGE), WHEN + 10**9)
    yield old
    os.close(old)


def test_a_large_file_that_is_replaced_makes_room_in_memory_for_the_new_one(src, dst, replaced):
    assert pages_in_memory(replaced) > 0
    sypy.sync(f"{src}/", f"{dst}/")
    assert_same(src, dst)
    assert pages_in_memory(replaced) == 0


def test_a_large_file_that_is_kept_under_another_name_stays_in_memory(src, dst, replaced):
    os.link(dst / "f", dst / "other")
    before = pages_in_memory(replaced)
    sypy.sync(f"{src}/", f"{dst}/")
    assert pages_in_memory(replaced) == before


def test_a_large_file_that_is_backed_up_stays_in_memory(src, dst, replaced, tmp_path):
    before = pages_in_memory(replaced)
    sypy.sync(f"{src}/", f"{dst}/", backup_dir=tmp_path / "backup")
    assert pages_in_memory(replaced) == before


def test_a_small_file_that_is_replaced_costs_no_more_calls(src, dst, sy_binary, strace, tmp_path):
    build(src, {"f": "new"})
    build(dst, {"f": "of old"})
    run([*strace("trace=all", log=tmp_path / "log"), sy_binary, "-a", f"{src}/", f"{dst}/"])
    calls = (tmp_path / "log").read_text()
    assert "fadvise64(" not in calls
    assert calls.count('"f", O_') == 1
