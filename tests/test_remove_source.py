"""`remove_source_files`: each source file goes once its copy is in place, and not a moment before."""

import os

import pytest

import sypy
from running import sync_unprivileged
from trees import WHEN, Fifo, File, Link, build, keys, text

MOVE = {"remove_source_files": True}


def test_files_and_links_move_and_directories_stay(src, dst):
    build(src, {"a": "1", "d/b": "2", "d/l": Link("b"), "empty/": None})
    sypy.sync(f"{src}/", f"{dst}/", **MOVE)
    assert keys(src) == {"d", "empty"}
    assert keys(dst) == {"a", "d", "d/b", "d/l", "empty"}
    assert text(dst / "d/b") == "2"


def test_a_file_whose_copy_is_already_in_place_goes_too(src, dst):
    build(src, {"a": "1"})
    build(dst, {"a": "1"})
    sypy.sync(f"{src}/", f"{dst}/", **MOVE)
    assert keys(src) == set() and text(dst / "a") == "1"


@pytest.mark.parametrize(
    "options",
    [{"ignore_existing": True}, {"update": True}, {"max_size": 3}, {"exclude": ["f"]}, {"max_age": "1d"}],
    ids=str,
)
def test_a_file_that_was_left_out_stays(src, dst, options):
    build(src, {"f": "the only copy"})
    build(dst, {"f": File("another", mtime_ns=WHEN + 10 * 10**9)})
    sypy.sync(f"{src}/", f"{dst}/", **MOVE, **options)
    assert text(src / "f") == "the only copy" and text(dst / "f") == "another"


def test_a_file_that_existing_left_out_stays(src, dst):
    build(src, {"f": "the only copy", "d/g": "the only copy"})
    dst.mkdir()
    sypy.sync(f"{src}/", f"{dst}/", existing=True, **MOVE)
    assert keys(src) == {"f", "d", "d/g"}


def test_links_and_special_files_that_were_left_out_stay(src, dst):
    build(src, {"l": Link("x"), "p": Fifo(), "f": "1"})
    sypy.sync(f"{src}/", f"{dst}/", links="skip", **MOVE)
    assert keys(src) == {"l", "p"}


def test_a_dry_run_removes_nothing(src, dst):
    build(src, {"a": "1"})
    sypy.sync(f"{src}/", f"{dst}/", dry_run=True, **MOVE)
    assert keys(src) == {"a"}


def test_a_file_that_could_not_be_copied_stays(src, dst):
    build(src, {"a": "1", "blocked": "the only copy"})
    build(dst, {"blocked/full": "mine"})
    with pytest.raises(sypy.PartialSyncError):
        sypy.sync(f"{src}/", f"{dst}/", **MOVE)
    assert keys(src) == {"blocked"}


def test_a_file_that_cannot_be_removed_is_recorded(src, dst):
    build(src, {"locked/a": "1", "open/b": "2"})
    os.chmod(src / "locked", 0o555)
    with pytest.raises(sypy.PartialSyncError):
        sync_unprivileged(f"{src}/", f"{dst}/", **MOVE)
    os.chmod(src / "locked", 0o755)
    assert keys(src) == {"locked", "locked/a", "open"}
    assert {"locked/a", "open/b"} <= keys(dst)


def test_moving_twice_does_not_undo_the_first_with_delete(src, dst):
    build(src, {"a": "1", "b": "2"})
    sypy.sync(f"{src}/", f"{dst}/", **MOVE)
    with pytest.raises(sypy.DeleteLimitError):
        sypy.sync(f"{src}/", f"{dst}/", delete=True, **MOVE)
    assert keys(dst) == {"a", "b"}
