"""Trees to and from hosts with an agent: what arrives, at a real sshd."""

import os
import stat

import pytest

import sypy
from events import Recorder
from ssh_host import host, own_host, way
from trees import WHEN, Dir, Fifo, File, Hard, Link, assert_same, build, keys, leftovers, rewrite, set_mtime, snapshot

__all__ = ["host", "own_host", "way"]

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root may do that")
TREE = {
    "a.txt": "text",
    "empty": b"",
    "run": File(b"#!", mode=0o755),
    "secret": File(b"s", mode=0o600),
    "special": File(b"s", mode=0o4711),
    "read-only": File(b"r", mode=0o444),
    "large": os.urandom(700_001),
    "old": File("old", mtime_ns=1),
    "before": File("before", mtime_ns=-1_500_000_001),
    "future": File("future", mtime_ns=4_000_000_000_987_654_321),
    "dir/": Dir(mode=0o750, mtime_ns=WHEN - 5),
    "dir/inner/": Dir(mode=0o700),
    "dir/inner/b": b"b" * 100_000,
    "dir/hollow/": None,
    "sticky/": Dir(mode=0o1777),
    "deep/er/and/deep/er/still/x": "x",
    "link": Link("a.txt"),
    "dangling": Link("../../nowhere"),
    "to-dir": Link("dir", mtime_ns=WHEN + 7),
}


def test_a_tree_arrives_and_a_second_run_does_nothing(way, src, dst):
    build(src, TREE)
    stats = way(f"{src}/", f"{dst}/")
    assert stats.success and stats.files_created == 15 and stats.symlinks_created == 3
    assert_same(src, dst)
    assert leftovers(dst) == []
    before = snapshot(dst, untouched=True)
    again = way(f"{src}/", f"{dst}/")
    assert (again.files_created, again.files_updated, again.files_metadata_updated, again.bytes_transferred) == (
        0,
        0,
        0,
        0,
    )
    assert way.changes(f"{src}/", f"{dst}/", checksum=True) == set()
    assert snapshot(dst, untouched=True) == before


def test_a_dry_run_knows_what_the_run_will_do(way, src, dst):
    build(src, TREE)
    way(f"{src}/", f"{dst}/").raise_for_errors()
    rewrite(src / "large", os.urandom(900_000), WHEN + 1)
    rewrite(src / "a.txt", "edited", WHEN + 1)
    (src / "run").chmod(0o700)
    (src / "link").unlink()
    (src / "link").symlink_to("run")
    (src / "empty").unlink()
    (src / "new").mkdir()
    build(src, {"new/one": "one", "swap/x": "now a directory", "swapped": "now a file"})
    build(dst, {"swap": "was a file", "swapped/": None, "extra/x": "x"})
    before = snapshot(dst)
    how = {"delete": True, "force_delete": True}
    foretold = way.changes(f"{src}/", f"{dst}/", dry_run=True, **how)
    assert snapshot(dst) == before
    assert way.changes(f"{src}/", f"{dst}/", **how) == foretold
    assert {
        ("large", "update"),
        ("run", "metadata"),
        ("link", "update"),
        ("empty", "delete"),
        ("new/one", "create"),
    } <= foretold
    assert_same(src, dst)
    assert way.changes(f"{src}/", f"{dst}/", **how) == set()


def test_a_dry_run_to_nowhere_makes_nothing(way, src, dst):
    build(src, TREE)
    foretold = way.changes(f"{src}/", f"{dst}/", dry_run=True)
    assert not dst.exists()
    assert way.changes(f"{src}/", f"{dst}/") == foretold


def test_content_decides_with_checksum(way, src, dst):
    big = os.urandom(600_000)
    build(src, {"a": "left", "b": "same", "big": big})
    build(dst, {"a": "side", "b": File("same", mtime_ns=WHEN + 10**9), "big": big[:-1] + bytes([big[-1] ^ 1])})
    assert ("a", "update") not in way.changes(f"{src}/", f"{dst}/", dry_run=True)
    expected = {("a", "update"), ("b", "metadata"), ("big", "update")}
    assert way.changes(f"{src}/", f"{dst}/", checksum=True, dry_run=True) == expected
    assert way.changes(f"{src}/", f"{dst}/", checksum=True) == expected
    assert_same(src, dst)


def test_deletions_have_their_limits(way, src, dst):
    build(src, {"keep": "k"})
    build(dst, {"keep": "k", **{f"extra{n}": "x" for n in range(9)}, "old/deep/er": "x"})
    before = keys(dst)
    for limit in [{}, {"max_delete": 3, "delete_threshold": 100}]:
        with pytest.raises(sypy.DeleteLimitError):
            way(f"{src}/", f"{dst}/", delete=True, **limit)
        assert keys(dst) == before
    stats = way(f"{src}/", f"{dst}/", delete=True, delete_threshold=100, max_delete=12)
    assert (stats.files_deleted, stats.dirs_deleted) == (10, 2)
    assert_same(src, dst)


def test_an_empty_source_deletes_nothing(way, src, dst):
    src.mkdir()
    build(dst, {"a": "a"})
    with pytest.raises(sypy.DeleteLimitError):
        way(f"{src}/", f"{dst}/", delete=True)
    assert keys(dst) == {"a"}


def test_kinds_change_places(way, src, dst):
    build(src, {"a/x": "now a directory", "b": "now a file", "c": Link("b"), "d": "was a fifo", "e/": None})
    build(dst, {"a": "was a file", "b/y": "was a directory", "c": "was a file", "d": Fifo(), "e": Link("/etc")})
    way(f"{src}/", f"{dst}/", delete=True, force_delete=True).raise_for_errors()
    assert_same(src, dst)


def test_what_is_replaced_or_deleted_is_kept_in_the_backups(way, src, dst):
    build(src, {"a": "new", "d/b": "new b", "c/": None, "big": os.urandom(300_000)})
    build(
        dst,
        {
            "a": "was here",
            "d/b": "was there",
            "extra": "extra",
            "c": "a file",
            "l": Link("a"),
            "big": File(b"x" * 300_000, mtime_ns=1),
        },
    )
    how = {"backup_dir": "kept/back", "delete": True, "force_delete": True}
    way(f"{src}/", f"{dst}/", **how).raise_for_errors()
    (stamp,) = (dst / "kept/back").iterdir()
    assert {key: (stamp / key).read_text() for key in ["a", "d/b", "extra", "c"]} == {
        "a": "was here", "d/b": "was there", "extra": "extra", "c": "a file",
    }  # fmt: skip
    assert (stamp / "big").read_bytes() == b"x" * 300_000 and os.readlink(stamp / "l") == "a"
    assert way.changes(f"{src}/", f"{dst}/", **how) == set()


def test_deleted_files_go_to_the_trash(way, src, dst):
    build(src, {"keep": "k"})
    build(dst, {"keep": "k", "gone": "gone", "dir/other": "too"})
    place = way.host.home if way.is_push else None
    way(f"{src}/", f"{dst}/", delete=True, force_delete=True, trash=True).raise_for_errors()
    assert_same(src, dst)
    if place is not None:
        assert (place / ".local/share/Trash/files/gone").read_text() == "gone"
        assert "gone" in (place / ".local/share/Trash/info/gone.trashinfo").read_text()


@pytest.mark.parametrize("links", ["preserve", "skip", "follow"])
def test_links_are_kept_skipped_or_followed(way, src, dst, tmp_path, links):
    build(tmp_path / "outside", {"o": "outside"})
    build(src, {"file": "f", "dir/x": "x", "to-file": Link("file"), "to-dir": Link("dir")})
    way(f"{src}/", f"{dst}/", links=links).raise_for_errors()
    if links == "preserve":
        assert_same(src, dst)
    elif links == "skip":
        assert keys(dst) == {"file", "dir", "dir/x"}
    else:
        assert keys(dst) == {"file", "dir", "dir/x", "to-file", "to-dir", "to-dir/x"}
        assert (dst / "to-dir/x").read_text() == "x" and not (dst / "to-dir").is_symlink()
    assert way.changes(f"{src}/", f"{dst}/", links=links) == set()


def test_followed_links_do_not_lead_out(way, src, dst, tmp_path):
    build(tmp_path / "outside", {"o": "outside"})
    build(src, {"f": "f", "out": Link("../outside"), "out-file": Link("../outside/o"), "loop/self": Link("..")})
    stats = way.of(f"{src}/", f"{dst}/", links="follow")
    assert not any(key.startswith("out") for key in keys(dst)) and (dst / "f").read_text() == "f"
    assert stats.errors


def test_links_at_the_destination_lead_nowhere(way, src, dst, tmp_path):
    build(tmp_path / "outside", {"kept": "kept"})
    build(src, {"d/new": "new", "f": "new"})
    build(dst, {"d": Link(str(tmp_path / "outside")), "f": Link(str(tmp_path / "outside/kept"))})
    way(f"{src}/", f"{dst}/").raise_for_errors()
    assert keys(tmp_path / "outside") == {"kept"} and (tmp_path / "outside/kept").read_text() == "kept"
    assert_same(src, dst)


def test_hard_links_stay_linked(way, src, dst):
    big = os.urandom(400_000)
    build(src, {"a": "one", "d/b": Hard("a"), "z": Hard("a"), "big": big, "d/big": Hard("big"), "single": "s"})
    how = {"preserve_hardlinks": True}
    way(f"{src}/", f"{dst}/", **how).raise_for_errors()
    assert_same(src, dst, hardlinks=True)
    assert way.changes(f"{src}/", f"{dst}/", **how) == set()
    (src / "z").unlink()
    (src / "z").write_text("alone now")
    way(f"{src}/", f"{dst}/", **how).raise_for_errors()
    assert_same(src, dst, hardlinks=True)


@root_only
def test_owners_and_special_files_are_kept(way, src, dst):
    build(src, {"a": File("a", mode=0o4755), "d/": None, "d/f": Fifo(), "l": Link("a")})
    for name in ["a", "d", "l"]:
        os.chown(src / name, 1234, 4321, follow_symlinks=False)
    os.chmod(src / "a", 0o4755)
    os.mknod(src / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    os.mknod(src / "disk", 0o640 | stat.S_IFBLK, os.makedev(7, 200))
    for name in ["null", "disk"]:
        set_mtime(src / name, WHEN)
    set_mtime(src, WHEN)
    set_mtime(src / "d", WHEN)
    way(f"{src}/", f"{dst}/", archive=True).raise_for_errors()
    assert_same(src, dst, owner=True)
    assert way.changes(f"{src}/", f"{dst}/", archive=True) == set()
    os.chown(src / "a", 1, 2)
    assert way.changes(f"{src}/", f"{dst}/", archive=True) >= {("a", "metadata")}
    assert_same(src, dst, owner=True)


def test_permissions_and_times_need_not_be_kept(way, src, dst):
    build(src, {"a": File("a", mode=0o640), "new": File("new", mode=0o666)})
    build(dst, {"a": File("old", mode=0o604)})
    way(f"{src}/", f"{dst}/", preserve_permissions=False, preserve_times=False).raise_for_errors()
    assert (dst / "a").stat().st_mode & 0o777 == 0o604 and (dst / "new").stat().st_mode & 0o777 == 0o644
    assert (dst / "new").stat().st_mtime_ns > WHEN + 10**9


def test_sources_are_removed_once_they_are_copied(way, src, dst):
    build(src, TREE)
    stats = way(f"{src}/", f"{dst}/", remove_source_files=True)
    assert stats.success and stats.sources_removed == 15
    assert keys(src) == {"dir", "dir/inner", "dir/hollow", "sticky"} | {
        "deep/er/and/deep/er/still"[:n] for n in (4, 7, 11, 16, 19, 25)
    }
    assert (dst / "dir/inner/b").read_bytes() == b"b" * 100_000


def test_events_tell_what_was_done(way, src, dst):
    build(src, {"a": "a", "d/b": "b"})
    seen = Recorder()
    way(f"{src}/", f"{dst}/", on_event=seen).raise_for_errors()
    assert {("a", "create"), ("d", "create"), ("d/b", "create")} <= seen.changes
