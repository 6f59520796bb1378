"""Limits on what is taken, how fast, how long, and how much may go wrong."""

import datetime
import os
import time
from contextlib import suppress

import pytest

import sypy
from running import sync_unprivileged
from trees import File, assert_same, build, keys, leftovers

DAY = 86_400
NOW = time.time_ns()


# Size.


@pytest.mark.parametrize(
    ("limit", "taken"),
    [
        ({"max_size": 1000}, "0 999 1000"),
        ({"max_size": "1KB"}, "0 999 1000"),
        ({"max_size": "1KiB"}, "0 999 1000 1024"),
        ({"max_size": "1K"}, "0 999 1000 1024"),
        ({"max_size": 0}, "0"),
        ({"min_size": 1000}, "1000 1024 2000000"),
        ({"min_size": "1KiB"}, "1024 2000000"),
        ({"min_size": "2MB"}, "2000000"),
        ({"min_size": 1, "max_size": "1.5k"}, "999 1000 1024"),
    ],
    ids=str,
)
def test_sizes_are_limits_that_include_themselves(src, dst, limit, taken):
    build(src, {str(size): "x" * size for size in (0, 999, 1000, 1024, 2_000_000)})
    stats = sypy.sync(f"{src}/", f"{dst}/", **limit)
    wanted = set(taken.split())
    assert keys(dst) == wanted
    assert (stats.files_created, stats.files_skipped) == (len(wanted), 5 - len(wanted))


def test_a_file_that_is_too_large_leaves_the_old_one_alone(src, dst):
    build(src, {"f": "x" * 100})
    build(dst, {"f": "old"})
    stats = sypy.sync(f"{src}/", f"{dst}/", max_size=50)
    assert (dst / "f").read_text() == "old" and stats.files_updated == 0


# Age.


@pytest.mark.parametrize(
    ("limit", "taken"),
    [
        ({"min_age": "1d"}, "week year"),
        ({"min_age": 1.5 * DAY}, "week year"),
        ({"max_age": "1d"}, "future new"),
        ({"max_age": "2w"}, "future new week"),
        ({"min_age": datetime.timedelta(hours=1), "max_age": datetime.timedelta(days=30)}, "week"),
        ({"max_age": "2h 30m"}, "future new"),
    ],
    ids=str,
)
def test_age_is_the_time_since_the_last_change(src, dst, limit, taken):
    ages = {"future": -3600, "new": 60, "week": 7 * DAY, "year": 365 * DAY}
    build(src, {name: File(name, mtime_ns=NOW - age * 10**9) for name, age in ages.items()})
    sypy.sync(f"{src}/", f"{dst}/", **limit)
    assert keys(dst) == set(taken.split())


def test_age_limits_neither_delete_nor_protect(src, dst):
    build(src, {"old": "source", "a": File("1", mtime_ns=NOW), "b": File("2", mtime_ns=NOW)})
    build(dst, {"old": "mine", "gone": "x"})
    sypy.sync(f"{src}/", f"{dst}/", max_age="1d", delete=True)
    assert keys(dst) == {"old", "a", "b"}
    assert (dst / "old").read_text() == "mine"


# Bandwidth.


@pytest.mark.parametrize("limit", ["2MB", 2_000_000])
def test_bwlimit_holds(src, dst, limit):
    build(src, {"big": os.urandom(3_000_000), **{f"small{n}": os.urandom(50_000) for n in range(20)}})
    started = time.monotonic()
    sypy.sync(f"{src}/", f"{dst}/", bwlimit=limit)
    took = time.monotonic() - started
    assert 1.2 < took < 6, f"4 MB at 2 MB a second took {took:.2f} s"
    assert_same(src, dst)


def test_bwlimit_does_not_slow_down_what_is_not_copied(src, dst):
    build(src, {f"f{n}": "x" * 100_000 for n in range(20)})
    sypy.sync(f"{src}/", f"{dst}/")
    started = time.monotonic()
    sypy.sync(f"{src}/", f"{dst}/", bwlimit=1000)
    assert time.monotonic() - started < 2


# Time.


def test_timeout_stops_the_run_and_leaves_whole_files(src, dst):
    build(src, {f"f{n:02}": os.urandom(200_000) for n in range(40)})
    started = time.monotonic()
    with pytest.raises(TimeoutError) as stopped:
        sypy.sync(f"{src}/", f"{dst}/", bwlimit="1MB", timeout=0.7, parallel=2)
    assert time.monotonic() - started < 3
    assert isinstance(stopped.value, sypy.SyncError)
    assert all(
        (dst / key).read_bytes() == (src / key).read_bytes() for key in keys(dst) if not key.startswith(".sypy-")
    )
    sypy.sync(f"{src}/", f"{dst}/")
    assert_same(src, dst)
    assert not leftovers(dst)


def test_a_timeout_that_is_not_reached_changes_nothing(src, dst):
    build(src, {"f": "1"})
    sypy.sync(f"{src}/", f"{dst}/", timeout=datetime.timedelta(minutes=1))
    assert_same(src, dst)


def test_nothing_is_deleted_after_the_timeout(src, dst):
    build(src, {f"f{n:02}": os.urandom(200_000) for n in range(20)})
    build(dst, {"gone": "x"})
    with pytest.raises(TimeoutError):
        sypy.sync(f"{src}/", f"{dst}/", bwlimit="500KB", timeout=0.5, delete=True, force_delete=True)
    assert (dst / "gone").exists()


# Errors.


@pytest.fixture
def unreadable(src):
    """50 files that can't be read, among 50 that can."""
    build(src, {f"{n:03}-{'bad' if n % 2 else 'good'}": File("x", mode=0 if n % 2 else 0o644) for n in range(100)})
    return src


def test_the_run_stops_after_max_errors(unreadable, dst):
    with pytest.raises(sypy.PartialSyncError) as partial:
        sync_unprivileged(f"{unreadable}/", f"{dst}/", max_errors=5, parallel=1)
    assert 5 <= len(partial.value.errors) < 25


def test_max_errors_of_nothing_means_never(unreadable, dst):
    with pytest.raises(sypy.PartialSyncError) as partial:
        sync_unprivileged(f"{unreadable}/", f"{dst}/", max_errors=0)
    assert len(partial.value.errors) == len(partial.value.stats.errors) == 50
    assert len(keys(dst)) == 50


def test_nothing_is_deleted_once_there_were_too_many_errors(unreadable, dst):
    build(dst, {"gone": "x"})
    with pytest.raises(sypy.PartialSyncError):
        sync_unprivileged(f"{unreadable}/", f"{dst}/", max_errors=5, delete=True, force_delete=True)
    assert (dst / "gone").exists()


@pytest.mark.parametrize("seconds", ["1e9", "10000000000000000000", "99999999999999d", "inf", "nan"])
def test_a_time_limit_beyond_all_time_is_none_or_refused(sync, src, dst, seconds):
    build(src, {"f": "1"})
    done = sync("--timeout", seconds)
    assert done.returncode in (0, 1)
    assert "internal error" not in done.stderr
    assert dst.exists() == (done.returncode == 0)


@pytest.mark.parametrize("seconds", [1e19, float("inf"), float("nan"), 10**19])
def test_a_time_limit_beyond_all_time_is_none_or_refused_in_python(src, dst, seconds):
    build(src, {"f": "1"})
    with suppress(ValueError, OverflowError):
        sypy.sync(f"{src}/", f"{dst}/", timeout=seconds)
        assert_same(src, dst)


@pytest.mark.parametrize("seconds", ["15000000000000000000", "18000000000000000000", "1e12", "inf"])
def test_a_delay_beyond_all_time_is_refused_or_can_be_stopped(sync, strace, src, dst, seconds):
    build(src, {"f": "1"})
    always = strace("trace=renameat,renameat2", "inject=renameat,renameat2:error=EBUSY")
    for _ in range(4):
        done = sync("--retry-delay", seconds, "--timeout", "0.3", prefix=always)
        assert done.returncode in (1, 30), done.stderr
        assert "internal error" not in done.stderr
        assert not dst.exists() or leftovers(dst) == []
