"""Hosts without an agent, and `sftp://`: copies both ways over SFTP, at a real sshd."""

import os
import shutil
import threading
import time
from pathlib import Path

import pytest

import running
import sypy
from events import Recorder
from sshd import HOST, SFTP, own_sshd, sshd
from trees import (
    Dir,
    Fifo,
    File,
    Hard,
    Link,
    assert_alike,
    build,
    difference,
    keys,
    leftovers,
    set_mtime,
    snapshot,
    whole,
)

__all__ = ["own_sshd", "sshd"]

# SFTP knows whole seconds.
WHEN = 1_700_000_000_000_000_000
DAY = 24 * 3600
TREE = {
    "a.txt": File("text", mtime_ns=WHEN),
    "empty": File(b"", mtime_ns=WHEN),
    "run": File(b"#!", mode=0o755, mtime_ns=WHEN),
    "secret": File(b"s", mode=0o600, mtime_ns=WHEN),
    "dir/": Dir(mtime_ns=WHEN),
    "dir/inner/": Dir(mode=0o700, mtime_ns=WHEN),
    "dir/inner/b": File(b"b" * 100_000, mtime_ns=WHEN),
    "dir/hollow/": Dir(mtime_ns=WHEN),
    "link": Link("a.txt", mtime_ns=WHEN),
    "dangling": Link("../../nowhere", mtime_ns=WHEN),
}


def of(run, *sides, **options):
    """The stats of a run in which some items may fail."""
    try:
        return run(*sides, **options)
    except sypy.PartialSyncError as partial:
        return partial.stats


@pytest.fixture(params=["push", "pull"])
def way(request, sshd):
    """Runs from one local path to another, one of them as seen through the server."""

    def run(source, dest, **options):
        sides = (f"{source}", sshd.url(dest)) if request.param == "push" else (sshd.url(source), f"{dest}")
        return sypy.sync(*sides, ssh=sshd.config, **options)

    run.is_push = request.param == "push"
    return run


def changes(way, source, dest, **options) -> set:
    seen = Recorder()
    way(source, dest, on_event=seen, **options).raise_for_errors()
    return seen.changes


def test_a_tree_arrives_and_a_second_run_does_nothing(way, src, dst):
    build(src, TREE)
    stats = way(f"{src}/", f"{dst}/")
    assert stats.success and stats.files_created == 7
    assert_alike(src, dst)
    assert changes(way, f"{src}/", f"{dst}/") == set()
    assert changes(way, f"{src}/", f"{dst}/", checksum=True) == set()


def test_times_with_fractions_are_equal_within_a_second(way, src, dst):
    build(src, {"a": File("a", mtime_ns=WHEN + 999_999_999), "d/": Dir(mtime_ns=WHEN + 1), "l": Link("a")})
    way(f"{src}/", f"{dst}/").raise_for_errors()
    assert_alike(src, dst)
    assert changes(way, f"{src}/", f"{dst}/") == set()


def test_edits_arrive_alone(way, src, dst):
    build(src, TREE)
    way(f"{src}/", f"{dst}/").raise_for_errors()
    (src / "a.txt").write_text("changed")
    (src / "new").write_text("new")
    (src / "run").chmod(0o700)
    set_mtime(src / "secret", WHEN + 5 * 10**9)
    (src / "link").unlink()
    (src / "link").symlink_to("run")
    (src / "empty").unlink()
    expected = {("a.txt", "update"), ("new", "create"), ("run", "metadata"), ("secret", "update"), ("link", "update")}
    foretold = Recorder()
    way(f"{src}/", f"{dst}/", dry_run=True, delete=True, on_event=foretold)
    assert foretold.changes - {(".", "metadata"), ("", "metadata")} == expected | {("empty", "delete")}
    done = changes(way, f"{src}/", f"{dst}/", delete=True)
    assert done - {(".", "metadata"), ("", "metadata")} == expected | {("empty", "delete")}
    assert_alike(src, dst)


def test_kinds_change_places(way, src, dst):
    build(src, {"a/x": "now a directory", "b": "now a file", "c": Link("b"), "d": "was a fifo"})
    build(dst, {"a": "was a file", "b/y": "was a directory", "c": "was a file", "d": Fifo()})
    way(f"{src}/", f"{dst}/", delete=True, force_delete=True).raise_for_errors()
    assert_alike(src, dst)


def test_a_file_takes_the_place_of_an_empty_directory(way, src, dst):
    build(src, {"a": "file", "b": "file"})
    build(dst, {"a/": None, "b/full": "kept"})
    stats = of(way, f"{src}/", f"{dst}/")
    assert (dst / "a").read_text() == "file" and (dst / "b/full").read_text() == "kept"
    assert [type(error) for error in stats.errors] == [sypy.AlreadyExistsError] or len(stats.errors) == 1


def test_deletions_have_their_limits(way, src, dst):
    build(src, {"keep": "k"})
    build(dst, {"keep": "k", **{f"extra{n}": "x" for n in range(9)}, "old/deep/er": "x"})
    before = keys(dst)
    with pytest.raises(sypy.DeleteLimitError):
        way(f"{src}/", f"{dst}/", delete=True)
    assert keys(dst) == before
    stats = way(f"{src}/", f"{dst}/", delete=True, force_delete=True)
    assert (stats.files_deleted, stats.dirs_deleted) == (10, 2)
    assert_alike(src, dst)


def test_an_empty_source_deletes_nothing(way, src, dst):
    src.mkdir()
    build(dst, {"a": "a"})
    with pytest.raises(sypy.DeleteLimitError):
        way(f"{src}/", f"{dst}/", delete=True)
    assert keys(dst) == {"a"}


ODD = [
    "new\nline", "-rf", "--delete", "*", "?", "[a]", "'quote'", '"double"', "back\\slash", "$HOME", "`id`", "a b", " ",
    "~", "~root", "tab\t", "\x1b[31m", "ü", "\udcff\udcfe", "a" * 255, ";", "#", "%41", "a:b", "..a", "...", ".hidden",
]  # fmt: skip


def test_any_name_goes_both_ways(way, src, dst):
    build(src, {name: name.encode(errors="surrogateescape") for name in ODD} | {"d\n/": None, "d\n/-x\udc80": "x"})
    for number, name in enumerate(ODD[:12]):
        os.symlink(name, os.path.join(src, f"link{number}"))
    way(f"{src}/", f"{dst}/").raise_for_errors()
    assert_alike(src, dst)
    assert changes(way, f"{src}/", f"{dst}/") == set()
    for name in os.listdir(src):
        if not os.path.isdir(os.path.join(src, name)):
            os.unlink(os.path.join(src, name))
    way(f"{src}/", f"{dst}/", delete=True, force_delete=True).raise_for_errors()
    assert_alike(src, dst)


def test_a_large_file_goes_in_many_packets(way, src, dst):
    build(src, {"big": File(os.urandom(9 << 20) + b"odd", mtime_ns=WHEN)})
    stats = way(f"{src}/", f"{dst}/", verify=True)
    assert stats.success and stats.files_verified == 1 and stats.bytes_transferred == (9 << 20) + 3
    assert_alike(src, dst)


def test_holes_stay_holes(way, src, dst):
    build(src, {})
    with open(src / "holes", "wb") as file:
        file.write(b"start")
        file.seek(8 << 20)
        file.write(b"middle")
        file.truncate(16 << 20)
    way(f"{src}/", f"{dst}/").raise_for_errors()
    assert_alike(src, dst)
    assert (dst / "holes").stat().st_blocks * 512 < 4 << 20


def test_many_names_in_one_directory(way, src, dst):
    build(src, {f"{n:04}": b"%d" % n for n in range(1500)} | {f"l{n:03}": Link("0001") for n in range(200)})
    assert way(f"{src}/", f"{dst}/").files_created == 1700
    assert_alike(src, dst)


def test_content_decides_with_checksum(way, src, dst):
    build(src, {"a": File("left", mtime_ns=WHEN), "b": File("same", mtime_ns=WHEN)})
    build(dst, {"a": File("side", mtime_ns=WHEN), "b": File("same", mtime_ns=WHEN + DAY * 10**9)})
    assert changes(way, f"{src}/", f"{dst}/", checksum=True, dry_run=True) >= {("a", "update"), ("b", "metadata")}
    assert changes(way, f"{src}/", f"{dst}/", checksum=True) >= {("a", "update"), ("b", "metadata")}
    assert_alike(src, dst)


def test_backups_stand_below_the_destination(way, src, dst):
    build(src, {"a": "new", "d/b": "new b", "c/": None})
    build(dst, {"a": "was here", "d/b": "was there", "extra": "extra", "c": "was a file", "l": Link("a")})
    stats = way(f"{src}/", f"{dst}/", backup_dir="kept/back", delete=True, force_delete=True)
    stats.raise_for_errors()
    (stamp,) = (dst / "kept/back").iterdir()
    assert {key: (stamp / key).read_text() for key in ["a", "d/b", "extra", "c"]} == {
        "a": "was here", "d/b": "was there", "extra": "extra", "c": "was a file",
    }  # fmt: skip
    assert os.readlink(stamp / "l") == "a"
    assert changes(way, f"{src}/", f"{dst}/", backup_dir="kept/back", delete=True) == set()


def test_sources_are_removed_once_they_are_copied(way, src, dst):
    build(src, TREE)
    stats = way(f"{src}/", f"{dst}/", remove_source_files=True)
    assert stats.success and stats.sources_removed == 7
    assert keys(src) == {"dir", "dir/inner", "dir/hollow"}
    assert (dst / "dir/inner/b").read_bytes() == b"b" * 100_000


def test_permissions_need_not_be_kept(way, src, dst):
    build(src, {"a": File("a", mode=0o640), "new": File("new", mode=0o666)})
    build(dst, {"a": File("old", mode=0o604)})
    way(f"{src}/", f"{dst}/", preserve_permissions=False).raise_for_errors()
    assert (dst / "a").stat().st_mode & 0o777 == 0o604
    assert (dst / "new").stat().st_mode & 0o777 == 0o644


def test_archive_leaves_out_what_sftp_has_not(way, src, dst):
    build(src, TREE | {"fifo": Fifo()})
    way(f"{src}/", f"{dst}/", archive=True).raise_for_errors()
    (src / "fifo").unlink()
    set_mtime(src, WHEN)
    set_mtime(dst, WHEN)
    assert_alike(src, dst, owner=True)
    with pytest.raises(sypy.UnsupportedError, match="preserve_xattrs"):
        way(f"{src}/", f"{dst}/", preserve_xattrs=True)
    with pytest.raises(sypy.UnsupportedError, match="trash" if way.is_push else "preserve_hardlinks"):
        way(f"{src}/", f"{dst}/", **({"trash": True} if way.is_push else {"preserve_hardlinks": True}))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_owners_are_kept_by_number(way, src, dst):
    build(src, {"a": File("a", mode=0o4755, mtime_ns=WHEN), "d/": Dir(mtime_ns=WHEN), "l": Link("a", mtime_ns=WHEN)})
    for name in ["a", "d", "l"]:
        os.chown(src / name, 1234, 4321, follow_symlinks=False)
    (src / "a").chmod(0o4755)
    way(f"{src}/", f"{dst}/", preserve_owner=True).raise_for_errors()
    assert_alike(src, dst, owner=True)
    os.chown(src / "a", 77, 77)
    (src / "a").chmod(0o4755)
    assert changes(way, f"{src}/", f"{dst}/", preserve_owner=True) == {("a", "metadata")}
    assert_alike(src, dst, owner=True)


def test_hard_links_are_made_and_found_again(sshd, src, dst):
    build(src, {"a": File("one", mtime_ns=WHEN), "b": Hard("a"), "d/c": Hard("a"), "x": File("two", mtime_ns=WHEN)})
    push = f"{src}/", sshd.url(f"{dst}/")
    kw = {"ssh": sshd.config, "preserve_hardlinks": True}
    sypy.sync(*push, **kw).raise_for_errors()
    assert_alike(src, dst, hardlinks=True)
    seen = Recorder()
    sypy.sync(*push, on_event=seen, **kw).raise_for_errors()
    assert seen.changes == set() and leftovers(dst) == []
    # Two files where there should be one.
    (dst / "b").unlink()
    (dst / "b").write_text("one")
    set_mtime(dst / "b", WHEN)
    os.link(dst / "b", dst / "other")
    sypy.sync(*push, **kw).raise_for_errors()
    (dst / "other").unlink()
    set_mtime(dst, WHEN)
    set_mtime(src, WHEN)
    assert_alike(src, dst, hardlinks=True)


def test_links_lead_nowhere(way, src, dst, tmp_path):
    build(tmp_path / "outside", {"kept": "kept"})
    build(src, {"d/new": "new"})
    build(dst, {"d": Link(str(tmp_path / "outside"))})
    way(f"{src}/", f"{dst}/").raise_for_errors()
    assert keys(tmp_path / "outside") == {"kept"} and not (dst / "d").is_symlink()
    assert_alike(src, dst)


def test_a_link_that_takes_a_directorys_place_is_not_followed(sshd, src, dst, tmp_path):
    build(tmp_path / "outside", {"kept": "kept"})
    build(src, {f"d/{n:03}": os.urandom(40_000) for n in range(80)})
    done = threading.Event()

    def swap():
        while not done.is_set():
            if (dst / "d/003").exists():
                (dst / "d").rename(dst / "away")
                (dst / "d").symlink_to(tmp_path / "outside")
                return
            time.sleep(0.01)

    swapper = threading.Thread(target=swap)
    swapper.start()
    # Slow enough that what is known of the directory grows old.
    stats = of(sypy.sync, f"{src}/", sshd.url(f"{dst}/"), ssh=sshd.config, bwlimit="400KB", retry=0, max_errors=0)
    done.set()
    swapper.join()
    assert stats.errors and any("symbolic link stands" in str(error) for error in stats.errors)
    written = keys(tmp_path / "outside")
    assert len(written) < 60, "what happens within two seconds can't be seen"


def test_what_changed_since_it_was_listed_stays(sshd, src, dst):
    build(src, {"a": os.urandom(600_000), "b": "b"})
    build(dst, {"a": "listed"})

    def write():
        running.wait_until(lambda: leftovers(dst), what="a transfer")
        (dst / "a").write_text("somebody's")

    writer = threading.Thread(target=write)
    writer.start()
    stats = of(sypy.sync, f"{src}/", sshd.url(f"{dst}/"), ssh=sshd.config, bwlimit="300KB", retry=0)
    writer.join()
    assert [type(error) for error in stats.errors] != [] and "changed" in str(stats.errors[0])
    assert (dst / "a").read_text() == "somebody's" and (dst / "b").read_text() == "b"
    assert leftovers(dst) == []


def test_a_source_that_changes_is_read_again(way, src, dst):
    build(src, {"a": b"1" * 600_000})

    def write():
        running.wait_until(lambda: dst.exists() and leftovers(dst), what="a transfer")
        (src / "a").write_bytes(b"2" * 600_001)

    writer = threading.Thread(target=write)
    writer.start()
    stats = way(f"{src}/", f"{dst}/", bwlimit="600KB", retry_delay=0.1)
    writer.join()
    stats.raise_for_errors()
    assert (dst / "a").read_bytes() == b"2" * 600_001 and leftovers(dst) == []


def test_single_files_and_slashes_mean_what_they_do_locally(way, src, dst):
    build(src, {"a": "a", "d/b": "b"})
    dst.mkdir()
    way(src / "a", dst / "renamed").raise_for_errors()
    way(src / "a", f"{dst}/").raise_for_errors()
    way(src / "d", dst).raise_for_errors()
    way(f"{src}/d/", dst / "contents").raise_for_errors()
    way(src / "a", f"{dst}/made/deep/").raise_for_errors()
    assert keys(dst) == {"renamed", "a", "d", "d/b", "contents", "contents/b", "made", "made/deep", "made/deep/a"}
    with pytest.raises(sypy.NotFoundError):
        way(src / "missing", f"{dst}/")
    with pytest.raises(sypy.AlreadyExistsError):
        way(f"{src}/", dst / "a")


def test_paths_may_begin_at_home(own_sshd, src, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    # Without an agent SFTP does what is asked of the host.
    server = own_sshd(subsystem=f"{SFTP} -d {home}", extra=["SetEnv PATH=/nowhere"])
    build(src, {"a": "a"})
    sypy.sync(f"{src}/", f"{HOST}:below/", ssh=server.config).raise_for_errors()
    assert keys(home) == {"below", "below/a"}
    listed = [entry.path for entry in sypy.ls(f"{HOST}:", recursive=True, ssh=server.config)]
    assert sorted(map(os.fspath, listed)) == ["below", "below/a"]
    with pytest.raises(sypy.UnsupportedError, match="no sy answered"):
        sypy.sync(f"{src}/", f"{HOST}:other/", ssh=server.config.replace(agent_path="/nowhere/sy"))


def test_tilde_is_the_users_home(sshd):
    home = {entry.path for entry in sypy.ls(f"{HOST}:", ssh=sshd.config)}
    for name in [f"{HOST}:~", f"{HOST}:~/", f"sftp://{HOST}", f"sftp://{HOST}/~/", f"ssh://{HOST}/~"]:
        assert {entry.path for entry in sypy.ls(name, ssh=sshd.config)} == home, name


def test_ls_shows_what_is_there(sshd, src):
    build(src, {"a": File("abc", mtime_ns=WHEN), "d/b": "b", "l": Link("a")})
    entries = {os.fspath(e.path): e for e in sypy.ls(sshd.url(f"{src}/"), recursive=True, ssh=sshd.config)}
    assert set(entries) == {"a", "d", "d/b", "l"} and entries["a"].size == 3
    assert [os.fspath(entry.path) for entry in sypy.ls(sshd.url(src / "a"), ssh=sshd.config)] == ["a"]
    with pytest.raises(sypy.NotFoundError):
        list(sypy.ls(sshd.url(src / "missing"), ssh=sshd.config))


def test_host_to_host(sshd, src, dst):
    build(src, TREE)
    sides = sshd.url(f"{src}/"), sshd.url(f"{dst}/")
    sypy.sync(*sides, ssh=sshd.config).raise_for_errors()
    assert_alike(src, dst)
    assert sypy.sync(*sides, ssh=sshd.config, checksum=True).files_skipped == 7
    for inside in [f"{src}/", f"{src}/dir/"]:
        with pytest.raises(sypy.ConfigError, match="the destination"):
            sypy.sync(sshd.url(f"{src}/"), sshd.url(inside), ssh=sshd.config)


def test_errors_say_what_and_where(sshd, src, dst):
    build(src, {"a": "a"})
    with pytest.raises(sypy.NotFoundError, match="missing"):
        sypy.sync(sshd.url("/missing/"), f"{dst}/", ssh=sshd.config)
    assert not dst.exists()
    with pytest.raises(sypy.ConfigError, match="backup_dir"):
        sypy.sync(f"{src}/", sshd.url(f"{dst}/"), ssh=sshd.config, backup_dir="/abs")
    with pytest.raises(sypy.UnsupportedError, match="links"):
        sypy.sync(sshd.url(f"{src}/"), f"{dst}/", ssh=sshd.config, links="follow")
    assert not dst.exists()


def test_a_full_disk_is_told_as_such(sshd, src, mount):
    place = mount("tmpfs", size="1m")
    build(src, {"fits": b"x"})
    sypy.sync(f"{src}/", sshd.url(f"{place}/"), ssh=sshd.config)
    build(src, {"large": os.urandom(3 << 20)})
    stats = of(sypy.sync, f"{src}/", sshd.url(f"{place}/"), ssh=sshd.config)
    assert [type(error).__name__ for error in stats.errors] == ["NoSpaceError"] or "No space" in str(stats.errors[0])
    assert (place / "fits").read_bytes() == b"x" and not (place / "large").exists() and leftovers(place) == []


def test_a_read_only_file_system_is_told_as_such(sshd, src, mount):
    place = mount("tmpfs", size="1m")
    build(src, {"a": "a", "d/b": "b"})
    running.run(["mount", "-o", "remount,ro", place])
    stats = of(sypy.sync, f"{src}/", sshd.url(f"{place}/"), ssh=sshd.config)
    assert stats.errors and all("read-only" in str(error) for error in stats.errors)


def test_what_may_not_be_replaced_stays(sshd, src, dst):
    build(src, {"a": "newer", "b": "new"})
    build(dst, {"a": "old"})
    if running.run(["chattr", "+i", dst / "a"]).returncode != 0:
        pytest.skip("no immutable files here")
    try:
        stats = of(sypy.sync, f"{src}/", sshd.url(f"{dst}/"), ssh=sshd.config)
        assert len(stats.errors) == 1 and (dst / "a").read_text() == "old" and (dst / "b").read_text() == "new"
        assert leftovers(dst) == []
    finally:
        running.run(["chattr", "-i", dst / "a"])


def test_a_cut_connection_is_made_again(way, sshd, src, dst):
    build(src, {f"{n:02}": os.urandom(100_000) for n in range(40)})
    seen = lambda: dst.exists() and len([key for key in keys(dst) if not key.startswith(".")]) > 3  # noqa: E731

    def cut():
        running.wait_until(seen, what="some files")
        sshd.cut()

    cutter = threading.Thread(target=cut)
    cutter.start()
    stats = way(f"{src}/", f"{dst}/", bwlimit="2MB", retry_delay=0.1)
    cutter.join()
    stats.raise_for_errors()
    assert stats.retries > 0
    assert_alike(src, dst)


def test_without_retries_a_cut_run_ends_and_the_next_goes_on(way, sshd, src, dst):
    build(src, {f"{n:02}": os.urandom(100_000) for n in range(40)})
    seen = lambda: dst.exists() and len([key for key in keys(dst) if not key.startswith(".")]) > 3  # noqa: E731

    def cut():
        running.wait_until(seen, what="some files")
        sshd.cut()

    cutter = threading.Thread(target=cut)
    cutter.start()
    stats = of(way, f"{src}/", f"{dst}/", bwlimit="2MB", retry=0, max_errors=0)
    cutter.join()
    assert stats.errors
    # Of a file whose answer was cut off it is not known that it is in place.
    there = len(keys(dst) - set(leftovers(dst)))
    assert stats.files_created <= there < 40
    again = way(f"{src}/", f"{dst}/")
    again.raise_for_errors()
    assert again.files_created == 40 - there
    wrong = difference(whole(snapshot(src)), {k: v for k, v in whole(snapshot(dst)).items() if ".sypy-" not in k})
    assert not wrong


def test_a_large_file_is_gone_on_with(way, sshd, src, dst):
    content = os.urandom(40 << 20)
    build(src, {"big": File(content, mtime_ns=WHEN)})
    part = lambda: [p for p in Path(dst).glob(".sypy-part-*") if p.stat().st_size > 8 << 20]  # noqa: E731

    def cut():
        running.wait_until(part, what="a part")
        sshd.cut()

    cutter = threading.Thread(target=cut)
    cutter.start()
    stats = of(way, f"{src}/", f"{dst}/", bwlimit="20MB", retry=0)
    cutter.join()
    assert stats.errors and part()
    again = way(f"{src}/", f"{dst}/")
    again.raise_for_errors()
    assert_alike(src, dst)


def test_a_part_that_is_wrong_is_written_anew(way, src, dst):
    content = os.urandom(33 << 20)
    build(src, {"big": File(content, mtime_ns=WHEN)})

    def stop(progress):
        if progress.bytes > 10 << 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        way(f"{src}/", f"{dst}/", bwlimit="40MB", progress=stop, progress_frequency_ms=20)
    (part,) = Path(dst).glob(".sypy-part-*")
    with open(part, "r+b") as file:
        file.seek(1 << 20)
        file.write(b"damage")
    way(f"{src}/", f"{dst}/").raise_for_errors()
    assert (dst / "big").read_bytes() == content
    assert_alike(src, dst)


def test_cancelled_runs_end_soon_and_clean_up(way, src, dst):
    build(src, {f"{n:02}": os.urandom(300_000) for n in range(40)})
    when = []

    def stop(progress):
        if progress.bytes > 500_000 and not when:
            when.append(time.monotonic())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        way(f"{src}/", f"{dst}/", bwlimit="500KB", progress=stop, progress_frequency_ms=20)
    assert when
    assert leftovers(dst) == []
    way(f"{src}/", f"{dst}/").raise_for_errors()
    assert_alike(src, dst)


def test_leftovers_of_dead_runs_go(way, src, dst, sy_binary, sshd):
    build(src, {f"{n:02}": os.urandom(300_000) for n in range(10)})
    dst.mkdir()
    sides = (f"{src}/", sshd.url(f"{dst}/")) if way.is_push else (sshd.url(f"{src}/"), f"{dst}/")
    script = "import sys, sypy; sypy.sync(*sys.argv[1:3], ssh=sypy.SshConfig(config_file=sys.argv[3]), bwlimit='300KB')"
    command = [running.sys.executable, "-c", script, *sides, sshd.place / "ssh_config"]
    with running.started([os.fspath(part) for part in command]) as process:
        running.wait_until(lambda: leftovers(dst), what="a transfer")
        process.kill()
        process.wait()
    assert leftovers(dst)
    way(f"{src}/", f"{dst}/").raise_for_errors()
    assert_alike(src, dst)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs another user than the one who runs it")
def test_a_directory_without_write_permission_is_opened_for_the_time_being(own_sshd, src, tmp_path):
    server = own_sshd(
        subsystem=f"{shutil.which('setpriv')} --reuid=65534 --regid=65534 --clear-groups /usr/lib/openssh/sftp-server"
    )
    place = tmp_path / "theirs"
    build(place, {"d/": Dir(mode=0o555), "d/old": "old", "closed/": Dir(mode=0o755)})
    for name in ["", "d", "d/old"]:
        os.chown(place / name, 65534, 65534)
    for up in [tmp_path, *tmp_path.parents]:
        if not up.stat().st_mode & 0o001:
            up.chmod(up.stat().st_mode | 0o011)
    build(src, {"d/": Dir(mode=0o555, mtime_ns=WHEN), "d/new": "new", "closed/x": "x"})
    stats = of(sypy.sync, f"{src}/", server.url(f"{place}/"), ssh=server.config, delete=True, force_delete=True)
    assert keys(place / "d") == {"new"} or stats.errors
    assert (place / "d").stat().st_mode & 0o777 == 0o555
    assert [type(error).__name__ for error in stats.errors] and all("closed" in str(error) for error in stats.errors)
    assert all("ermission denied" in str(error) for error in stats.errors)


def test_a_host_that_offers_no_sftp(own_sshd, src, dst):
    server = own_sshd(subsystem="/nonexistent/sftp-server")
    build(src, {"a": "a"})
    with pytest.raises(sypy.SyncError, match="SFTP"):
        sypy.sync(f"{src}/", server.url(f"{dst}/"), ssh=server.config)
    assert not dst.exists()


def test_durable_files_are_synced(sshd, src, dst):
    build(src, TREE)
    sypy.sync(f"{src}/", sshd.url(f"{dst}/"), ssh=sshd.config, durable=True).raise_for_errors()
    assert_alike(src, dst)


def test_several_connections(way, src, dst, sshd):
    build(src, {f"{n:03}": b"%d" % n for n in range(200)})
    sides = (f"{src}/", sshd.url(f"{dst}/")) if way.is_push else (sshd.url(f"{src}/"), f"{dst}/")
    sypy.sync(*sides, ssh=sshd.config.replace(pool_size=3)).raise_for_errors()
    assert_alike(src, dst)


def test_a_bucket_and_a_host_read_from_each_other(sshd, src, dst, moto, sync_at):
    build(
        src,
        {k: v for k, v in TREE.items() if not k.endswith("/")} | {"large": File(os.urandom(20 << 20), mtime_ns=WHEN)},
    )
    bucket = moto.bucket()
    config = {"ssh_config": sshd.place / "ssh_config"}
    up = sync_at(moto, sshd.url(f"{src}/"), bucket.url("p/"), **config).done()
    assert up.stats["files_created"] == 8
    assert sync_at(moto, sshd.url(f"{src}/"), bucket.url("p/"), **config).done().changes == set()
    sync_at(moto, bucket.url("p/"), sshd.url(f"{dst}/"), **config).done()
    kept = {"mtime_ns": 0, "mode": 0}
    plain = lambda tree: {k: n | kept if n["kind"] == "directory" else n for k, n in whole(snapshot(tree)).items()}  # noqa: E731
    wrong = difference(plain(src), plain(dst))
    assert [line for line in wrong if "hollow" not in line] == []
    assert sync_at(moto, bucket.url("p/"), sshd.url(f"{dst}/"), **config).done().changes == set()
    (src / "a.txt").write_text("changed")
    (src / "run").unlink()
    force = config | {"delete": True, "force_delete": True}
    sync_at(moto, sshd.url(f"{src}/"), bucket.url("p/"), **force).done()
    done = sync_at(moto, bucket.url("p/"), sshd.url(f"{dst}/"), **force).done()
    assert {change for change in done.changes if change[1] != "metadata"} == {("a.txt", "update"), ("run", "delete")}


def test_the_command_line_says_how_to_reach_a_host(sshd, src, dst, command):
    build(src, {"a": "a"})
    flags = ["--ssh-key", sshd.place / "id", "--ssh-port", sshd.port, "--ssh-known-hosts", sshd.place / "known_hosts"]
    flags += ["--ssh-config", "/dev/null", "--ssh-option", "IdentitiesOnly=yes"]
    url = f"sftp://127.0.0.1{dst}/"
    done = running.run([*command, f"{src}/", url, *map(str, flags)])
    assert done.returncode == 0, done.stderr
    assert running.run([*command, "ls", url, *map(str, flags)]).stdout == "a\n"
    refused = running.run([*command, f"{src}/", f"{dst}/", "--ssh-port", "22"])
    assert refused.returncode != 0 and "neither side is on an SSH host" in refused.stderr
