"""What counts as equal, and what that leads to."""

import os

import pytest

import sypy
from running import wait_until
from trees import WHEN, File, assert_same, build, is_in_memory, keys, rewrite, set_mtime, snapshot, text

SECOND = 1_000_000_000


@pytest.fixture
def flipped(src, dst):
    """Two trees alike in size and time, but for one file that differs in content."""
    build(src, {"d/a": "content", "d/flip": "content"})
    build(dst, {"d/a": "content", "d/flip": "c0ntent"})
    return src, dst


def test_same_size_and_time_is_equal(flipped):
    src, dst = flipped
    stats = sypy.sync(f"{src}/", f"{dst}/")
    assert (stats.files_updated, stats.files_skipped, stats.bytes_read) == (0, 2, 0)
    assert text(dst / "d/flip") == "c0ntent"


@pytest.mark.parametrize("off", [1, -1, 1000, SECOND, -SECOND])
def test_a_nanosecond_makes_a_difference(src, dst, off):
    build(src, {"f": File("new", mtime_ns=WHEN + off)})
    build(dst, {"f": "old"})
    assert sypy.sync(f"{src}/", f"{dst}/").files_updated == 1
    assert_same(src, dst)


def test_an_older_source_file_wins_too(src, dst):
    build(src, {"f": File("source", mtime_ns=WHEN - SECOND)})
    build(dst, {"f": "newer!"})
    sypy.sync(f"{src}/", f"{dst}/")
    assert text(dst / "f") == "source"


def test_checksum_finds_a_planted_flip(flipped):
    src, dst = flipped
    stats = sypy.sync(f"{src}/", f"{dst}/", checksum=True)
    assert (stats.files_updated, stats.files_skipped) == (1, 1)
    assert_same(src, dst)


def test_checksum_only_sets_the_time_of_equal_content(src, dst):
    build(src, {"f": File("same", mtime_ns=WHEN + SECOND)})
    build(dst, {"f": "same"})
    inode = os.stat(dst / "f").st_ino
    stats = sypy.sync(f"{src}/", f"{dst}/", checksum=True)
    assert (stats.files_updated, stats.files_metadata_updated, stats.bytes_transferred) == (0, 1, 0)
    assert os.stat(dst / "f").st_ino == inode
    assert_same(src, dst)


def fill_index(src, dst):
    """Runs with checksum until the index knows both sides; a file changed just now may have to wait for that."""
    if is_in_memory(src) or is_in_memory(dst):
        pytest.skip("nothing is remembered of file systems in memory; --basetemp names another place")
    wait_until(
        lambda: sypy.sync(f"{src}/", f"{dst}/", checksum=True).bytes_read == 0, what="a checksum run from the index"
    )


def test_checksum_again_reads_nothing(src, dst):
    build(src, {f"f{n}": f"{n}" * 5000 for n in range(20)})
    sypy.sync(f"{src}/", f"{dst}/")
    first = sypy.sync(f"{src}/", f"{dst}/", checksum=True)
    assert (first.files_skipped, first.files_updated) == (20, 0)
    fill_index(src, dst)


@pytest.mark.parametrize("side", ["src", "dst"])
def test_checksum_with_an_index_still_finds_a_planted_flip(src, dst, side):
    build(src, {"f": "content", "g": "other"})
    sypy.sync(f"{src}/", f"{dst}/")
    fill_index(src, dst)
    rewrite(src.parent / side / "f", "c0ntent")
    assert sypy.sync(f"{src}/", f"{dst}/", checksum=True).files_updated == 1
    assert_same(src, dst)


def test_checksum_with_an_index_notices_a_replaced_file(src, dst):
    build(src, {"f": "content"})
    sypy.sync(f"{src}/", f"{dst}/")
    fill_index(src, dst)
    build(src, {"other": "c0ntent"})
    os.replace(src / "other", src / "f")
    assert sypy.sync(f"{src}/", f"{dst}/", checksum=True).files_updated == 1
    assert text(dst / "f") == "c0ntent"


def test_the_index_never_lands_in_either_tree(src, dst):
    build(src, {"f": "content"})
    sypy.sync(f"{src}/", f"{dst}/", checksum=True)
    sypy.sync(f"{src}/", f"{dst}/", checksum=True)
    assert keys(src) == keys(dst) == {"f"}


def test_size_only_looks_at_nothing_else(src, dst):
    build(src, {"same": File("abc", mtime_ns=WHEN + SECOND), "longer": "abcd"})
    build(dst, {"same": "xyz", "longer": "xyz"})
    stats = sypy.sync(f"{src}/", f"{dst}/", size_only=True)
    assert stats.files_updated == 1
    assert (text(dst / "same"), text(dst / "longer")) == ("xyz", "abcd")


def test_ignore_times_copies_everything_again(flipped):
    src, dst = flipped
    assert sypy.sync(f"{src}/", f"{dst}/", ignore_times=True).files_updated == 2
    assert_same(src, dst)
    assert sypy.sync(f"{src}/", f"{dst}/", ignore_times=True).files_updated == 2


def test_update_leaves_what_is_newer_at_the_destination(src, dst):
    build(src, {"newer here": "source 1", "newer there": "source", "same time": "longer content"})
    build(dst, {"newer here": "x", "newer there": "mine", "same time": "short"})
    set_mtime(src / "newer here", WHEN + SECOND)
    set_mtime(dst / "newer there", WHEN + SECOND)
    before = snapshot(dst)["newer there"]
    stats = sypy.sync(f"{src}/", f"{dst}/", update=True)
    assert (stats.files_updated, stats.files_skipped) == (2, 1)
    assert snapshot(dst)["newer there"] == before
    assert text(dst / "newer here") == "source 1"
    assert text(dst / "same time") == "longer content"


def test_update_and_checksum_leave_what_is_newer_at_the_destination(src, dst):
    build(src, {"f": "source"})
    build(dst, {"f": File("mine!!", mtime_ns=WHEN + 1)})
    sypy.sync(f"{src}/", f"{dst}/", update=True, checksum=True)
    assert text(dst / "f") == "mine!!"


def test_existing_creates_nothing(src, dst):
    build(src, {"known": "new content", "unknown": "1", "dir/unknown": "2"})
    build(dst, {"known": "old"})
    stats = sypy.sync(f"{src}/", f"{dst}/", existing=True)
    assert (stats.files_created, stats.files_updated, stats.dirs_created) == (0, 1, 0)
    assert keys(dst) == {"known"}
    assert text(dst / "known") == "new content"


def test_existing_with_delete_only_shrinks(src, dst):
    build(src, {"a": "1", "b": "2"})
    build(dst, {"a": "0", "c": "3"})
    sypy.sync(f"{src}/", f"{dst}/", existing=True, delete=True)
    assert keys(dst) == {"a"}


def test_ignore_existing_changes_nothing_that_is_there(src, dst):
    build(src, {"known": File("new content", mode=0o600), "unknown": "1", "d/unknown": "2"})
    build(dst, {"known": "old", "d/": None})
    before = snapshot(dst)["known"]
    stats = sypy.sync(f"{src}/", f"{dst}/", ignore_existing=True)
    assert (stats.files_created, stats.files_updated, stats.files_metadata_updated) == (2, 0, 0)
    assert snapshot(dst)["known"] == before
    assert keys(dst) == {"known", "unknown", "d", "d/unknown"}


def test_existing_and_ignore_existing_together_only_delete(src, dst):
    build(src, {"a": "source", "b": "2", "c": "3"})
    build(dst, {"a": "mine", "x": "gone soon", "c": "3"})
    sypy.sync(f"{src}/", f"{dst}/", existing=True, ignore_existing=True, delete=True)
    assert keys(dst) == {"a", "c"}
    assert text(dst / "a") == "mine"


def test_only_a_mode_differs(src, dst):
    build(src, {"f": File("same", mode=0o600)})
    build(dst, {"f": File("same", mode=0o644)})
    inode = os.stat(dst / "f").st_ino
    stats = sypy.sync(f"{src}/", f"{dst}/")
    assert (stats.files_metadata_updated, stats.files_updated, stats.bytes_transferred) == (1, 0, 0)
    assert os.stat(dst / "f").st_ino == inode
    assert_same(src, dst)


def test_an_equal_file_of_the_wrong_kind_is_replaced(src, dst):
    build(src, {"f": "target"})
    build(dst, {"target": "target"})
    os.symlink("target", dst / "f")
    set_mtime(dst / "f", WHEN)
    sypy.sync(f"{src}/", f"{dst}/")
    assert not (dst / "f").is_symlink()
    assert text(dst / "target") == "target"
