"""What the two paths may name, and what each way of naming means."""

import os
from contextlib import suppress

import pytest

import sypy
from running import run, sync_unprivileged
from trees import Dir, File, Link, assert_same, build, keys, snapshot, text

# A directory, with and without a trailing slash.


def test_with_a_trailing_slash_the_contents_are_meant(src, dst):
    build(src, {"a": "1"})
    sypy.sync(f"{src}/", dst)
    assert keys(dst) == {"a"}


@pytest.mark.parametrize("slash", ["", "/"])
def test_without_one_the_directory_itself_goes_inside(src, dst, slash):
    build(src, {"a": "1", "d/b": "2"})
    sypy.sync(str(src), f"{dst}{slash}")
    assert keys(dst) == {"src", "src/a", "src/d", "src/d/b"}
    assert_same(src, dst / "src")


def test_without_one_only_that_directory_is_mirrored(src, dst):
    build(src, {"a": "1", "b": "2"})
    build(dst, {"other/x": "mine", "src/a": "1", "src/b": "2", "src/gone": "x"})
    sypy.sync(str(src), str(dst), delete=True)
    assert keys(dst) == {"other", "other/x", "src", "src/a", "src/b"}


def test_dot_means_the_contents(src, dst, monkeypatch):
    build(src, {"a": "1"})
    monkeypatch.chdir(src)
    sypy.sync(".", dst)
    sypy.sync("./", dst)
    assert keys(dst) == {"a"}


def test_relative_paths_and_dots_work(src, dst, monkeypatch):
    build(src, {"d/a": "1"})
    monkeypatch.chdir(src)
    sypy.sync("d/../d/", "../dst")
    assert keys(dst) == {"a"}


def test_slashes_in_a_row_are_one(src, dst):
    build(src, {"a": "1"})
    sypy.sync(f"{src}//", f"{dst}//")
    assert keys(dst) == {"a"}


# A single file.


def test_a_file_goes_into_a_destination_that_ends_in_a_slash(src, dst):
    build(src, {"f": File("1", mode=0o640)})
    stats = sypy.sync(src / "f", f"{dst}/")
    assert stats.files_created == 1
    assert snapshot(dst)["f"] == snapshot(src)["f"]


def test_a_file_goes_into_a_directory_that_is_there(src, dst):
    build(src, {"f": "1"})
    build(dst, {"other": "2"})
    sypy.sync(src / "f", dst)
    assert keys(dst) == {"f", "other"}


def test_a_file_can_get_a_new_name(src, dst):
    build(src, {"f": "1"})
    sypy.sync(src / "f", dst / "deep" / "g")
    assert keys(dst) == {"deep", "deep/g"}
    again = sypy.sync(src / "f", dst / "deep" / "g")
    assert (again.files_created, again.files_updated, again.files_skipped) == (0, 0, 1)


def test_a_file_replaces_a_file(src, dst):
    build(src, {"f": "new content"})
    build(dst, {"g": "old", "h": "untouched"})
    stats = sypy.sync(src / "f", dst / "g")
    assert stats.files_updated == 1
    assert (text(dst / "g"), text(dst / "h")) == ("new content", "untouched")


def test_delete_with_a_single_file_deletes_nothing(src, dst):
    build(src, {"f": "1"})
    build(dst, {"other": "2", "d/g": "3"})
    sypy.sync(src / "f", f"{dst}/", delete=True, force_delete=True)
    assert keys(dst) == {"f", "other", "d", "d/g"}


def test_a_file_does_not_replace_a_directory_of_its_name(src, dst):
    build(src, {"f": "1"})
    build(dst, {"f/inside": "mine"})
    with pytest.raises(sypy.SyncError):
        sypy.sync(src / "f", f"{dst}/")
    assert keys(dst) == {"f", "f/inside"}


def test_a_link_as_the_source_is_copied_as_a_link(src, dst):
    build(src, {"l": Link("target")})
    sypy.sync(src / "l", f"{dst}/")
    assert os.readlink(dst / "l") == "target"


def test_a_file_named_with_a_trailing_slash_is_an_error(src, dst):
    build(src, {"f": "1"})
    with pytest.raises(sypy.SyncError):
        sypy.sync(f"{src}/f/", f"{dst}/")
    assert not dst.exists()


# Sources and destinations that are no good.


def test_a_missing_source_is_an_error_before_anything_is_made(src, dst):
    with pytest.raises(FileNotFoundError) as missing:
        sypy.sync(f"{src}/", f"{dst}/", delete=True, force_delete=True)
    assert isinstance(missing.value, sypy.NotFoundError)
    assert str(src) in str(missing.value)
    assert not dst.exists()


def test_a_missing_source_is_said_in_one_line(src, dst, command):
    done = run([*command, f"{src}/", f"{dst}/"])
    assert done.returncode not in (0, 101)
    assert str(src) in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 2


def test_an_unreadable_source_deletes_nothing(src, dst):
    build(src, {"a": "1"})
    build(dst, {"b": "2"})
    os.chmod(src, 0)
    try:
        with pytest.raises(PermissionError):
            sync_unprivileged(f"{src}/", f"{dst}/", delete=True, force_delete=True)
    finally:
        os.chmod(src, 0o755)
    assert keys(dst) == {"b"}


def test_a_destination_that_is_a_file_is_an_error_for_a_tree(src, dst):
    build(src, {"a": "1"})
    dst.write_text("a file")
    with pytest.raises(sypy.SyncError):
        sypy.sync(f"{src}/", dst)
    assert text(dst) == "a file"


def test_a_file_where_a_parent_of_the_destination_must_go(src, tmp_path):
    build(src, {"a": "1"})
    (tmp_path / "file").write_text("a file")
    with pytest.raises(sypy.SyncError):
        sypy.sync(f"{src}/", tmp_path / "file" / "sub")
    assert text(tmp_path / "file") == "a file"


# Trees that overlap.


@pytest.mark.parametrize(
    ("source", "dest"),
    [
        ("a/", "a/"),
        ("a/", "a"),
        ("a/", "a/b/"),
        ("a/", "a/not/there/yet"),
        ("a", "a"),
        ("a", "a/b"),
        ("a", "."),
        ("a/b/", "a/"),
        ("a/", "link/"),
        ("link/", "a/"),
        ("a/", "link/b"),
        ("a/", "a/../a/b/"),
        ("a/", "a/b/new"),
        ("a/", "b-link/new"),
        ("a/f", "a/f"),
        ("a/f", "a/"),
        ("a/f", "link/f"),
        ("a/f", "link/"),
    ],
)
def test_trees_that_overlap_are_refused(tmp_path, monkeypatch, source, dest):
    build(tmp_path, {"a/f": "1", "a/b/g": "2", "link": Link("a"), "b-link": Link("a/b")})
    monkeypatch.chdir(tmp_path)
    before = snapshot(tmp_path, untouched=True)
    with pytest.raises(sypy.ConfigError):
        sypy.sync(source, dest, delete=True, force_delete=True)
    assert snapshot(tmp_path, untouched=True) == before


def test_a_file_onto_a_hard_link_of_itself_keeps_its_content(tmp_path):
    build(tmp_path, {"f": "precious"})
    os.link(tmp_path / "f", tmp_path / "g")
    with suppress(sypy.SyncError):
        sypy.sync(tmp_path / "f", tmp_path / "g")
    assert text(tmp_path / "f") == text(tmp_path / "g") == "precious"


def test_a_name_that_only_begins_alike_does_not_overlap(tmp_path):
    build(tmp_path, {"photos/a": "1"})
    sypy.sync(f"{tmp_path}/photos/", f"{tmp_path}/photos-copy/")
    assert keys(tmp_path / "photos-copy") == {"a"}


def test_a_single_file_may_go_next_to_itself(tmp_path):
    build(tmp_path, {"d/f": "1"})
    sypy.sync(tmp_path / "d/f", tmp_path / "d/g")
    sypy.sync(tmp_path / "d/f", f"{tmp_path}/d/sub/")
    assert keys(tmp_path) == {"d", "d/f", "d/g", "d/sub", "d/sub/f"}


# Files where directories must go and the reverse.


def test_a_directory_replaces_a_file(src, dst):
    build(src, {"x/a": "1", "y/deep/b": "2"})
    build(dst, {"x": "file", "y": Link("x")})
    sypy.sync(f"{src}/", f"{dst}/")
    assert_same(src, dst)


def test_a_file_replaces_an_empty_directory(src, dst):
    build(src, {"x": "1"})
    build(dst, {"x/": None})
    sypy.sync(f"{src}/", f"{dst}/")
    assert_same(src, dst)


@pytest.mark.parametrize("thing", ["content", Link("target")], ids=["file", "link"])
def test_a_full_directory_in_the_way_is_an_error_without_delete(src, dst, thing):
    build(src, {"x": thing, "other": "copied"})
    build(dst, {"x/mine": "precious"})
    with pytest.raises(sypy.PartialSyncError) as partial:
        sypy.sync(f"{src}/", f"{dst}/")
    assert keys(dst) == {"x", "x/mine", "other"}
    assert [os.path.basename(error.path) for error in partial.value.errors] == ["x"]


@pytest.mark.parametrize("thing", ["content", Link("target")], ids=["file", "link"])
def test_a_full_directory_in_the_way_is_replaced_with_delete(src, dst, thing):
    build(src, {"x": thing, "a": "1", "b": "2", "c": "3"})
    build(dst, {"x/gone": "1", "a": "1", "b": "2", "c": "3"})
    sypy.sync(f"{src}/", f"{dst}/", delete=True)
    assert_same(src, dst)


def test_a_directory_that_would_be_replaced_counts_for_the_threshold(src, dst):
    build(src, {"x": "now a file", "a": "1"})
    build(dst, {**{f"x/{n}": "precious" for n in range(20)}, "a": "1"})
    with pytest.raises(sypy.DeleteLimitError):
        sypy.sync(f"{src}/", f"{dst}/", delete=True)
    assert len(keys(dst)) == 22


def test_a_directory_in_the_way_that_holds_protected_files_stays(src, dst):
    build(src, {"x": "now a file", "a": "1"})
    build(dst, {"x/keep.txt": "precious", "a": "1"})
    with pytest.raises(sypy.PartialSyncError):
        sypy.sync(f"{src}/", f"{dst}/", delete=True, force_delete=True, exclude=["*.txt"])
    assert text(dst / "x/keep.txt") == "precious"


# Names whose order is a trap: byte order with directories sorting as "name/".


@pytest.mark.parametrize("options", [{}, {"checksum": True}, {"parallel": 1}], ids=str)
@pytest.mark.parametrize("swap", [False, True])
def test_names_around_a_slash_in_order(src, dst, swap, options):
    dirs = {f"{name}/x": name for name in ("a", "a-b", "b.d")}
    files = {name: f"file {name}" for name in ("a.txt", "a0", "a!", "a b", "aa", "b", "b-")}
    build(src, dirs | files)
    build(
        dst,
        {**dict.fromkeys(("a", "a-b", "b.d"), "file"), **{f"{name}/y": "1" for name in ("a.txt", "b")}} if swap else {},
    )
    sypy.sync(f"{src}/", f"{dst}/", delete=True, force_delete=True, **options)
    assert_same(src, dst)
    again = sypy.sync(f"{src}/", f"{dst}/", delete=True, delete_threshold=0)
    assert (again.files_created, again.files_updated, again.files_deleted, again.dirs_deleted) == (0, 0, 0, 0)


@pytest.mark.parametrize(
    "in_source", [["a/x", "a-b", "a.txt"], ["a", "a-b", "a.txt"], ["a-b/", "a.txt/"], ["a", "a.d/x"]]
)
@pytest.mark.parametrize(
    "at_dest", [["a", "a-b", "a.txt"], ["a/x/y", "a-b/z", "a.txt"], ["a/", "a.d"], ["a.d/x", "a/x"]]
)
def test_swaps_of_every_kind_end_in_the_same_tree(src, dst, in_source, at_dest):
    build(src, {"keep": "1", **{key: None if key.endswith("/") else "source" for key in in_source}})
    build(dst, {key: None if key.endswith("/") else "destination" for key in at_dest})
    sypy.sync(f"{src}/", f"{dst}/", delete=True, force_delete=True)
    assert_same(src, dst)


def test_an_empty_directory_that_lost_its_files_stays(src, dst):
    build(src, {"d": Dir(mode=0o700), "a": "1", "b": "2", "c": "3"})
    build(dst, {"d/gone": "x", "a": "1"})
    sypy.sync(f"{src}/", f"{dst}/", delete=True)
    assert_same(src, dst)


def test_bare_names_are_in_the_current_directory(tmp_path, monkeypatch):
    (tmp_path / "f").write_text("1")
    monkeypatch.chdir(tmp_path)
    sypy.sync("f", "copy")
    sypy.sync("f", "deep/er/")
    assert (tmp_path / "copy").read_text() == (tmp_path / "deep/er/f").read_text() == "1"
