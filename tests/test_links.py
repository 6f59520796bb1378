"""Symbolic links in three modes, and hard links."""

import os

import pytest

import sypy
from events import changes_of_json
from running import sync_in_child
from trees import WHEN, File, Hard, Link, assert_same, build, keys, rewrite, snapshot, text

LINKED = {
    "dir/file": "content",
    "to-file": Link("dir/file"),
    "to-dir": Link("dir"),
    "dir/up": Link("../dir/file"),
    "dangling": Link("nowhere"),
    "absolute": Link("/etc/hostname"),
}


# As links.


def test_links_are_kept_as_they_are_whatever_they_point_to(src, dst):
    build(src, LINKED)
    stats = sypy.sync(f"{src}/", f"{dst}/")
    assert_same(src, dst)
    assert stats.symlinks_created == 5


def test_a_link_that_points_elsewhere_is_updated(src, dst):
    build(src, {"l": Link("new")})
    build(dst, {"l": Link("old")})
    assert sypy.sync(f"{src}/", f"{dst}/").files_updated == 1
    assert os.readlink(dst / "l") == "new"
    assert sypy.sync(f"{src}/", f"{dst}/").files_updated == 0


def test_a_link_replaces_a_file_and_a_file_a_link(src, dst):
    build(src, {"now-link": Link("target"), "now-file": "content"})
    build(dst, {"now-link": "content", "now-file": Link("target"), "target": "untouched"})
    sypy.sync(f"{src}/", f"{dst}/")
    assert os.readlink(dst / "now-link") == "target"
    assert not (dst / "now-file").is_symlink() and text(dst / "now-file") == "content"
    assert text(dst / "target") == "untouched"


def test_nothing_is_written_through_a_link_at_the_destination(src, dst, tmp_path):
    build(tmp_path / "outside", {"file": "untouched", "dir/f": "untouched"})
    build(src, {"file": "new", "dir/f": "new", "dir/g": "new"})
    build(dst, {"file": Link(str(tmp_path / "outside/file")), "dir": Link(str(tmp_path / "outside/dir"))})
    before = snapshot(tmp_path / "outside", untouched=True)
    sypy.sync(f"{src}/", f"{dst}/")
    assert snapshot(tmp_path / "outside", untouched=True) == before
    assert_same(src, dst)


def test_nothing_is_deleted_through_a_link_at_the_destination(src, dst, tmp_path):
    build(tmp_path / "outside", {"f": "untouched"})
    build(src, {"dir/a": "1", "b": "2"})
    build(dst, {"dir": Link(str(tmp_path / "outside")), "b": "2"})
    sypy.sync(f"{src}/", f"{dst}/", delete=True, force_delete=True)
    assert keys(tmp_path / "outside") == {"f"}
    assert_same(src, dst)


def test_a_root_may_be_named_through_a_link(src, dst, tmp_path):
    build(src, {"a": "1"})
    dst.mkdir()
    os.symlink(src, tmp_path / "source")
    os.symlink(dst, tmp_path / "dest")
    sypy.sync(f"{tmp_path}/source/", f"{tmp_path}/dest/")
    assert_same(src, dst)


# Left out.


def test_skip_leaves_links_out(src, dst):
    build(src, LINKED)
    stats = sypy.sync(f"{src}/", f"{dst}/", links="skip")
    assert keys(dst) == {"dir", "dir/file"}
    assert stats.symlinks_created == 0 and stats.success


# Followed.


def test_follow_copies_what_links_point_to(src, dst):
    build(
        src,
        {
            "dir/file": File("content", mode=0o640),
            "dir/up": Link("file"),
            "to-file": Link("dir/file"),
            "to-dir": Link("dir"),
        },
    )
    sypy.sync(f"{src}/", f"{dst}/", links="follow")
    assert {key for key, node in snapshot(dst).items() if node["kind"] == "symlink"} == set()
    assert keys(dst) == {"dir", "dir/file", "dir/up", "to-file", "to-dir", "to-dir/file", "to-dir/up"}
    assert snapshot(dst)["to-file"] == snapshot(dst)["dir/file"] == snapshot(src)["dir/file"]


def test_follow_twice_does_nothing(src, dst):
    build(src, {"dir/file": "content", "to-file": Link("dir/file"), "to-dir": Link("dir")})
    sypy.sync(f"{src}/", f"{dst}/", links="follow")
    again = sypy.sync(f"{src}/", f"{dst}/", links="follow", delete=True)
    assert (again.files_created, again.files_updated, again.files_deleted, again.dirs_created) == (0, 0, 0, 0)


@pytest.mark.parametrize(
    "target", ["../outside/secret", "{tmp}/outside/secret", "dir/../../outside/secret", "hop/secret"]
)
def test_follow_never_leaves_the_source(src, dst, tmp_path, target):
    build(tmp_path / "outside", {"secret": "SECRET"})
    build(src, {"a": "1", "dir/": None, "hop": Link("../outside"), "l": Link(target.format(tmp=tmp_path))})
    sypy.sync(f"{src}/", f"{dst}/", links="follow", on_error="collect")
    assert text(dst / "a") == "1"
    assert not any("SECRET" in str(node.get("content")) for node in snapshot(dst).values())
    assert not (dst / "l").exists()


def test_follow_never_leaves_the_source_by_a_directory(src, dst, tmp_path):
    build(tmp_path / "outside", {"secret": "SECRET"})
    build(src, {"a": "1", "l": Link("../outside")})
    sypy.sync(f"{src}/", f"{dst}/", links="follow", on_error="collect")
    assert keys(dst) <= {"a", "l"}
    assert not (dst / "l" / "secret").exists()


def test_unsafe_links_may_lead_out(src, dst, tmp_path):
    build(tmp_path / "outside", {"shared": "content", "dir/f": "more"})
    build(src, {"l": Link("../outside/shared"), "d": Link(str(tmp_path / "outside/dir"))})
    sypy.sync(f"{src}/", f"{dst}/", links="follow", unsafe_links=True)
    assert text(dst / "l") == "content" and not (dst / "l").is_symlink()
    assert text(dst / "d/f") == "more"


def test_an_absolute_link_into_the_source_can_be_followed(src, dst):
    build(src, {"dir/f": "content", "l": Link(str(src / "dir/f"))})
    sypy.sync(f"{src}/", f"{dst}/", links="follow", on_error="collect", unsafe_links=True)
    assert text(dst / "l") == "content"


@pytest.mark.parametrize("links", ["preserve", "follow", "skip"])
def test_links_in_a_circle_end(src, dst, links):
    build(
        src,
        {
            "a": "1",
            "self": Link("self"),
            "x": Link("y"),
            "y": Link("x"),
            "d/up": Link(".."),
            "d/me": Link("."),
            "d/f": "2",
        },
    )
    sync_in_child(f"{src}/", f"{dst}/", links=links, on_error="collect", timeout=30)
    assert text(dst / "a") == "1" and text(dst / "d/f") == "2"
    if links == "preserve":
        assert_same(src, dst)


def test_following_a_dangling_link_is_recorded_and_deletes_nothing(src, dst):
    build(src, {"a": "1", "b": "2", "lost": Link("unmounted/file")})
    build(dst, {"a": "1", "lost": "the only copy", "gone": "x"})
    stats = sypy.sync(f"{src}/", f"{dst}/", links="follow", delete=True, force_delete=True, on_error="collect")
    assert [os.path.basename(error.path) for error in stats.errors] == ["lost"]
    assert text(dst / "lost") == "the only copy"
    assert text(dst / "b") == "2"


# Hard links.


def test_hard_links_become_separate_files_when_not_asked_for(src, dst):
    build(src, {"a": "content", "b": Hard("a")})
    sypy.sync(f"{src}/", f"{dst}/")
    assert os.stat(dst / "a").st_ino != os.stat(dst / "b").st_ino
    assert_same(src, dst)


def test_hard_links_are_kept(src, dst):
    build(src, {"a": "content", "d/b": Hard("a"), "z/y/x": Hard("a"), "other": "content", "single": "1"})
    stats = sypy.sync(f"{src}/", f"{dst}/", preserve_hardlinks=True)
    assert_same(src, dst, hardlinks=True)
    assert stats.files_created == 5
    assert stats.bytes_transferred == len("content") * 2 + 1


def test_a_new_name_joins_a_partner_that_is_up_to_date(src, dst):
    build(src, {"m": "content"})
    sypy.sync(f"{src}/", f"{dst}/", preserve_hardlinks=True)
    inode = os.stat(dst / "m").st_ino
    os.link(src / "m", src / "a")
    os.link(src / "m", src / "z")
    stats = sypy.sync(f"{src}/", f"{dst}/", preserve_hardlinks=True)
    assert {os.stat(dst / name).st_ino for name in ("a", "m", "z")} == {inode}
    assert stats.bytes_transferred == 0
    assert_same(src, dst, hardlinks=True)


def test_equal_files_that_should_be_one_are_joined(src, dst):
    build(src, {"a": "content", "b": Hard("a"), "c": Hard("a")})
    build(dst, {"a": "content", "b": "content"})
    sypy.sync(f"{src}/", f"{dst}/", preserve_hardlinks=True)
    assert_same(src, dst, hardlinks=True)


def test_names_that_should_no_longer_be_one_file_are_parted(src, dst):
    build(src, {"a": "content", "b": "content"})
    build(dst, {"a": "content", "b": Hard("a")})
    sypy.sync(f"{src}/", f"{dst}/", preserve_hardlinks=True)
    rewrite(src / "a", "changed!", WHEN + 1)
    sypy.sync(f"{src}/", f"{dst}/", preserve_hardlinks=True)
    assert (text(dst / "a"), text(dst / "b")) == ("changed!", "content")


@pytest.mark.parametrize("preserve", [False, True])
def test_an_update_does_not_reach_other_names_of_the_old_file(src, dst, tmp_path, preserve):
    build(src, {"f": "new content"})
    build(dst, {"f": "old"})
    os.link(dst / "f", tmp_path / "elsewhere")
    sypy.sync(f"{src}/", f"{dst}/", preserve_hardlinks=preserve)
    assert (text(dst / "f"), text(tmp_path / "elsewhere")) == ("new content", "old")


def test_a_group_is_updated_as_a_group(src, dst):
    build(src, {"a": "content", "b": Hard("a"), "c": Hard("a")})
    sypy.sync(f"{src}/", f"{dst}/", preserve_hardlinks=True)
    rewrite(src / "b", "changed content", WHEN + 1)
    sypy.sync(f"{src}/", f"{dst}/", preserve_hardlinks=True)
    assert_same(src, dst, hardlinks=True)


def test_groups_that_changed_partners(src, dst):
    build(dst, {"a": "one", "b": Hard("a"), "c": "three", "d": Hard("c")})
    build(src, {"a": "one", "c": Hard("a"), "b": "three", "d": Hard("b")})
    sypy.sync(f"{src}/", f"{dst}/", preserve_hardlinks=True)
    assert_same(src, dst, hardlinks=True)
    again = sypy.sync(f"{src}/", f"{dst}/", preserve_hardlinks=True)
    assert (again.files_created, again.files_updated) == (0, 0)


def test_hard_linked_symlinks_arrive(src, dst):
    build(src, {"l": Link("x")})
    os.link(src / "l", src / "m", follow_symlinks=False)
    sypy.sync(f"{src}/", f"{dst}/", preserve_hardlinks=True)
    assert os.readlink(dst / "l") == os.readlink(dst / "m") == "x"


def test_a_partner_that_is_filtered_out_is_no_partner(src, dst):
    build(src, {"a.tmp": "content", "b": Hard("a.tmp"), "c": Hard("a.tmp")})
    sypy.sync(f"{src}/", f"{dst}/", preserve_hardlinks=True, exclude=["*.tmp"])
    assert keys(dst) == {"b", "c"}
    assert os.stat(dst / "b").st_ino == os.stat(dst / "c").st_ino


@pytest.mark.parametrize("options", [[], ["-H"], ["-c"], ["-j1"]], ids=" ".join)
def test_two_files_that_are_one_at_the_destination_each_get_their_own_mode(sync, src, dst, options):
    build(src, {"a": File("same", mode=0o600), "b": File("same", mode=0o644)})
    build(dst, {"a": File("same", mode=0o600), "b": Hard("a")})
    assert sync(*options).returncode == 0
    assert_same(src, dst)
    again = sync(*options, "--json")
    assert (again.returncode, changes_of_json(again.stdout)) == (0, set())
    assert_same(src, dst)


def test_two_files_that_are_one_at_the_destination_each_get_their_own_time(sync, src, dst):
    build(src, {"a": File("same", mtime_ns=WHEN - 1), "b": File("same", mtime_ns=WHEN + 1)})
    build(dst, {"a": "same", "b": Hard("a")})
    assert sync("-c").returncode == 0
    assert_same(src, dst)
