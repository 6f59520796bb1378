"""`remove_source_files`: each source file goes once its copy is in place, and not a moment before."""

import os

import pytest

import sypy
from running import sync_unprivileged
from trees import WHEN, Fifo, File, Hard, Link, build, keys, snapshot, text

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


def contents(root, names) -> list[str]:
    return [text(root / name) for name in names]


@pytest.mark.parametrize("options", [(), ("-H",)], ids=["apart", "linked"])
@pytest.mark.parametrize("before", [{}, {"a": "1", "d/c": "1"}], ids=["new", "in place"])
def test_files_with_several_names_move_whole(sync, src, dst, options, before):
    build(src, {"a": "1", "b": Hard("a"), "d/c": Hard("a"), "other": "1"})
    build(dst, before)
    done = sync("--remove-source-files", *options)
    assert done.returncode == 0, done.stderr
    assert keys(src) == {"d"}
    assert contents(dst, ["a", "b", "d/c", "other"]) == ["1"] * 4
    if options:
        assert os.stat(dst / "a").st_nlink == 3


def test_a_file_that_is_the_one_at_the_destination_stays(sync, src, dst, bind):
    build(src, {"d/": None, "f": "1"})
    build(dst, {"d/precious": "the only copy"})
    bind(dst / "d", src / "d")
    assert sync("--remove-source-files").returncode in (0, 1, 23)
    assert text(dst / "d/precious") == "the only copy"


def test_a_file_that_is_the_one_at_the_destination_stays_however_it_is_compared(sync, src, dst, bind):
    build(src, {"d/": None})
    build(dst, {"d/precious": "the only copy"})
    bind(dst / "d", src / "d")
    for options in (["-c"], ["-I"], ["--verify"], ["-H"], ["--delete"]):
        sync("--remove-source-files", *options)
        assert text(dst / "d/precious") == "the only copy", options


@pytest.mark.parametrize("options", [["-L"], ["-L", "--unsafe-links"], ["-L", "--dry-run"]], ids=" ".join)
def test_nothing_that_links_lead_to_is_ever_removed(sync, src, dst, tmp_path, options):
    build(tmp_path / "outside", {"f": "precious"})
    build(dst, {"x/precious": "the only copy"})
    build(src, {"f": "1", "l": Link("f"), "out": Link(str(tmp_path / "outside")), "x": Link(str(dst / "x"))})
    before = snapshot(tmp_path, untouched=True)
    done = sync("--remove-source-files", *options)
    assert done.returncode == 1 and "remove" in done.stderr, done.stderr
    assert snapshot(tmp_path, untouched=True) == before
