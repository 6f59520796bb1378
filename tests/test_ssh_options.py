"""What the options of a run mean where one side is a host with an agent."""

import os
import shutil
import subprocess
import time

import pytest

import running
from ssh_host import host, own_host, way, wire_to
from sshd import HOST
from trees import WHEN, File, Link, assert_same, build, keys, leftovers, rewrite, set_mtime, snapshot

__all__ = ["host", "own_host", "way", "wire_to"]
MIB = 1 << 20


def holey(path) -> None:
    with open(path, "wb") as file:
        file.write(b"start")
        file.seek(8 * MIB)
        file.write(b"middle" * 1000)
        file.truncate(24 * MIB)
    set_mtime(path, WHEN)


def allocated(path) -> int:
    return os.stat(path).st_blocks * 512


def test_holes_stay_holes(way, src, dst):
    build(src, {"small": "s"})
    holey(src / "holes")
    with open(src / "nothing", "wb") as file:
        file.truncate(4 * MIB)
    set_mtime(src, WHEN)
    set_mtime(src / "nothing", WHEN)
    way(f"{src}/", f"{dst}/").raise_for_errors()
    assert_same(src, dst)
    assert allocated(dst / "holes") < MIB and allocated(dst / "nothing") < MIB


def test_holes_of_a_changed_file_stay_holes(way, src, dst):
    build(src, {})
    holey(src / "holes")
    way(f"{src}/", f"{dst}/").raise_for_errors()
    with open(src / "holes", "r+b") as file:
        file.write(b"START")
    set_mtime(src / "holes", WHEN + 1)
    set_mtime(src, WHEN)
    way(f"{src}/", f"{dst}/").raise_for_errors()
    assert_same(src, dst)
    assert allocated(dst / "holes") < MIB


def test_holes_are_filled_when_not_wanted(way, src, dst):
    build(src, {})
    holey(src / "holes")
    way(f"{src}/", f"{dst}/", sparse=False).raise_for_errors()
    assert (dst / "holes").read_bytes() == (src / "holes").read_bytes()
    assert allocated(dst / "holes") >= 24 * MIB


def test_a_changed_file_goes_as_its_differences(way, src, dst):
    old = os.urandom(2 * MIB)
    build(src, {"big": old, "same": os.urandom(200_000)})
    way(f"{src}/", f"{dst}/").raise_for_errors()
    for new in [
        old[:MIB] + b"inserted" + old[MIB:],
        old[:500_000] + os.urandom(1000) + old[501_000:],
        old + old,
        old[MIB:],
    ]:
        rewrite(src / "big", new, (src / "big").stat().st_mtime_ns + 10)
        stats = way(f"{src}/", f"{dst}/")
        assert stats.files_updated == 1 and stats.files_delta_synced == 1
        assert len(new) - 40_000 < stats.delta_bytes_saved <= len(new)
        assert_same(src, dst)
    rewrite(src / "big", os.urandom(MIB), WHEN + 7)
    stats = way(f"{src}/", f"{dst}/")
    assert stats.delta_bytes_saved < 1000 and stats.bytes_transferred == MIB
    assert_same(src, dst)
    assert leftovers(dst) == []


@pytest.mark.parametrize("size", [0, 1, 1000, 65_535, 65_536, 131_072, 131_073, 262_144, 262_145, 1_048_577])
def test_files_of_any_size_are_made_and_changed(way, src, dst, size):
    build(src, {"f": os.urandom(size)})
    way(f"{src}/", f"{dst}/", verify=True).raise_for_errors()
    assert_same(src, dst)
    for other in [size + 1, size * 2, size // 2]:
        rewrite(src / "f", os.urandom(other), (src / "f").stat().st_mtime_ns + 1)
        way(f"{src}/", f"{dst}/", verify=True).raise_for_errors()
        assert_same(src, dst)


def test_verify_and_durable(way, src, dst):
    build(src, {"a": "a", "big": os.urandom(500_000), "e": b"", "l": Link("a")})
    stats = way(f"{src}/", f"{dst}/", verify=True, durable=True)
    assert stats.success and stats.files_verified == 3 and stats.verification_failures == 0
    assert_same(src, dst)


def test_filters_decide_on_both_sides(way, src, dst):
    build(src, {"a.txt": "a", "a.tmp": "t", "cache/x": "x", "d/keep.txt": "k", "d/b.tmp": "t", "d/cache": "a file"})
    build(dst, {"b.tmp": "protected", "old.txt": "goes", "cache/old": "protected"})
    how = {"exclude": ["*.tmp", "cache/"], "delete": True, "force_delete": True}
    foretold = way.changes(f"{src}/", f"{dst}/", dry_run=True, **how)
    assert way.changes(f"{src}/", f"{dst}/", **how) == foretold
    assert keys(dst) == {"a.txt", "d", "d/keep.txt", "d/cache", "b.tmp", "cache", "cache/old"}
    way(f"{src}/", f"{dst}/", include=["*.txt", "*/"], exclude=["*"]).raise_for_errors()


def test_git_ignore_files_are_read_where_the_source_is(way, src, dst):
    build(
        src,
        {".gitignore": "*.o\n/build/\n", "a.c": "a", "a.o": "o", "build/x": "x", "sub/.gitignore": "!keep.o\nlocal\n"},
    )
    build(src, {"sub/keep.o": "k", "sub/local": "l", "sub/other.o": "o", "sub/build/x": "x", ".git/config": "c"})
    way(f"{src}/", f"{dst}/", gitignore=True).raise_for_errors()
    expected = {".gitignore", "a.c", "sub", "sub/.gitignore", "sub/keep.o", "sub/build", "sub/build/x"}
    assert keys(dst) - {".git", ".git/config"} == expected


def test_existing_and_ignore_existing_and_update(way, src, dst):
    build(
        src,
        {
            "there": File("new", mtime_ns=WHEN + 5),
            "missing": "m",
            "older": File("older", mtime_ns=WHEN - 5),
            "d/x": "x",
        },
    )
    build(dst, {"there": "old", "older": "newer there"})
    assert way.changes(f"{src}/", f"{dst}/", ignore_existing=True, dry_run=True) >= {
        ("missing", "create"),
        ("d/x", "create"),
    }
    assert way.changes(f"{src}/", f"{dst}/", existing=True, update=True) - {("", "metadata"), (".", "metadata")} == {
        ("there", "update")
    }
    assert (dst / "there").read_text() == "new" and (dst / "older").read_text() == "newer there"
    way(f"{src}/", f"{dst}/", ignore_existing=True).raise_for_errors()
    assert (dst / "older").read_text() == "newer there" and (dst / "d/x").read_text() == "x"
    way(f"{src}/", f"{dst}/").raise_for_errors()
    assert_same(src, dst)


def test_sizes_leave_files_out(way, src, dst):
    build(src, {"0": b"", "10": b"x" * 10, "1000": b"x" * 1000, "big": b"x" * 300_000})
    way(f"{src}/", f"{dst}/", min_size=10, max_size=1000).raise_for_errors()
    assert keys(dst) == {"10", "1000"}


@pytest.mark.parametrize("how", ["size_only", "ignore_times"])
def test_other_ways_to_compare(way, src, dst, how):
    build(src, {"a": File("left", mtime_ns=WHEN + 10), "b": "b" * 200_000})
    build(dst, {"a": "side", "b": "b" * 200_000})
    expected = {"size_only": {("a", "metadata")}, "ignore_times": {("a", "update"), ("b", "update")}}[how]
    assert way.changes(f"{src}/", f"{dst}/", **{how: True}) == expected
    assert (dst / "a").read_text() == ("side" if how == "size_only" else "left")


def test_the_rate_is_limited(way, src, dst):
    build(src, {"a": os.urandom(200_000), "b": os.urandom(200_000)} | {f"s{n}": os.urandom(5000) for n in range(40)})
    before = time.monotonic()
    way(f"{src}/", f"{dst}/", bwlimit="400KB").raise_for_errors()
    assert time.monotonic() - before > 0.8
    assert_same(src, dst)


@pytest.mark.parametrize("options", [{"parallel": 1}, {"parallel": 64}, {"compress": True}, {"resume": False}])
def test_other_options_change_nothing_about_the_result(way, src, dst, options):
    build(src, {f"d{n % 7}/{n}": os.urandom(n * 200) for n in range(60)} | {"big": b"text " * 100_000})
    way(f"{src}/", f"{dst}/", **options).raise_for_errors()
    assert_same(src, dst)


def test_counters_say_what_happened(way, src, dst):
    build(
        src,
        {
            "new": "new",
            "d/new": b"x" * 300_000,
            "same": "same",
            "edited": "edited",
            "mode": File("m", mode=0o600),
            "l": Link("new"),
        },
    )
    build(dst, {"same": "same", "edited": File("old", mtime_ns=5), "mode": "m", "gone": "gone"})
    stats = way(f"{src}/", f"{dst}/", delete=True, force_delete=True)
    counted = {
        "files_created": 3, "files_updated": 1, "files_metadata_updated": 1, "files_deleted": 1, "files_skipped": 1, "dirs_created": 1,
        "symlinks_created": 1, "bytes_transferred": 3 + 300_000 + 6, "files_delta_synced": 0, "verification_failures": 0,
    }  # fmt: skip
    assert {name: getattr(stats, name) for name in counted} == counted


def test_many_small_files_in_few_and_many_directories(way, src, dst):
    build(src, {f"{n:05}": b"%d" % n for n in range(3000)} | {f"d/{n}/{n}/f": b"%d" % n for n in range(400)})
    assert way(f"{src}/", f"{dst}/").files_created == 3400
    assert_same(src, dst)
    before = snapshot(dst, untouched=True)
    assert way(f"{src}/", f"{dst}/").files_skipped == 3400
    assert snapshot(dst, untouched=True) == before


@pytest.mark.skipif(shutil.which("chattr") is None or os.geteuid() != 0, reason="only root makes files immutable")
def test_what_may_not_be_written_is_told_and_the_rest_arrives(way, src, dst):
    build(src, {"a/new": "new", "b/new": "new", "c": "c"})
    build(dst, {"a/old": "old", "c": "old c"})
    if subprocess.run(["chattr", "+i", dst / "a"], capture_output=True, check=False).returncode:
        pytest.skip("this file system knows no immutable files")
    try:
        stats = way.of(f"{src}/", f"{dst}/")
    finally:
        subprocess.run(["chattr", "-i", dst / "a"], check=True)
    assert stats.errors and all(isinstance(error, PermissionError) for error in stats.errors)
    assert {os.path.basename(os.fspath(error.path)) for error in stats.errors} <= {"new", "a"}
    assert (dst / "b/new").read_text() == "new" and (dst / "c").read_text() == "c" and leftovers(dst) == []
    way(f"{src}/", f"{dst}/").raise_for_errors()
    assert keys(dst) == keys(src) | {"a/old"}


def test_the_next_run_takes_the_connection_that_was_kept(way, host, wire_to, src, dst):
    build(src, {"a": "1"})
    wire = wire_to(host)
    how = {"ssh": host.through(wire.port), "daemon_auto": True}
    way(f"{src}/", f"{dst}/", **how).raise_for_errors()
    build(src, {"b": "2"})
    way(f"{src}/", f"{dst}/", **how).raise_for_errors()
    assert_same(src, dst)
    assert wire.connections == 1
    # One that was cut meanwhile is made anew.
    wire.cut()
    build(src, {"c": "3"})
    way(f"{src}/", f"{dst}/", **how).raise_for_errors()
    assert_same(src, dst)
    assert wire.connections == 2


def test_a_command_keeps_no_connection_and_says_so(host, sy_binary, src, dst):
    build(src, {"a": "1"})
    command, env = host.cli(sy_binary)
    done = running.run([*command, "--daemon-auto", f"{src}/", f"{HOST}:{dst}/"], env=env)
    assert done.returncode == 1 and "ControlPersist" in done.stderr
    assert not dst.exists()


def test_packing_is_counted(way, src, dst):
    words = b"the same words again and again " * 3000
    build(src, {"a": words[:900], "d/b": words, "large": File(words * 5), "big": File(os.urandom(1000) + words * 20)})
    stats = way(f"{src}/", f"{dst}/", compress=True)
    stats.raise_for_errors()
    total = sum(path.stat().st_size for path in src.rglob("*") if path.is_file())
    assert stats.files_compressed == 4
    assert 0.9 * total < stats.compression_bytes_saved < total * 1.01
    again = way(f"{src}/", f"{dst}/", compress=True)
    assert (again.files_compressed, again.compression_bytes_saved) == (0, 0)
