"""What the world does to a run: each item that fails is recorded, everything else arrives, nothing is lost."""

import errno
import os
import threading
import time

import pytest

import sypy
from running import run, started, sync_in_child, sync_unprivileged, wait_until, with_means
from trees import WHEN, File, assert_same, build, keys, leftovers, rewrite, snapshot, text

# Permission denied.


def test_an_unreadable_file_is_recorded_and_the_rest_goes_on(src, dst):
    build(src, {"a": "1", "bad": File("secret", mode=0), "d/z": "2"})
    with pytest.raises(sypy.PartialSyncError) as partial:
        sync_unprivileged(f"{src}/", f"{dst}/")
    assert keys(dst) == {"a", "d", "d/z"}
    (error,) = partial.value.errors
    assert isinstance(error, sypy.PermissionDeniedError) and isinstance(error, PermissionError)
    assert error.path.endswith("bad") and error.action


def test_an_unreadable_file_leaves_the_old_copy(src, dst):
    build(src, {"f": File("new content", mode=0), "g": "1"})
    build(dst, {"f": "old"})
    sync_unprivileged(f"{src}/", f"{dst}/", on_error="collect", delete=True)
    assert text(dst / "f") == "old" and text(dst / "g") == "1"


def test_collect_returns_the_stats_with_their_errors(src, dst):
    build(src, {"a": "1", "bad": File("secret", mode=0)})
    stats = sync_unprivileged(f"{src}/", f"{dst}/", on_error="collect")
    assert not stats.success and len(stats.errors) == 1 and stats.files_created == 1
    with pytest.raises(sypy.PartialSyncError):
        stats.raise_for_errors()


def test_an_unreadable_directory_is_recorded_and_the_rest_goes_on(src, dst):
    build(src, {"a": "1", "closed/x": "2", "z/y": "3"})
    build(dst, {"closed/x": "2", "closed/mine": "precious", "gone": "stays this time"})
    os.chmod(src / "closed", 0)
    with pytest.raises(sypy.PartialSyncError) as partial:
        sync_unprivileged(f"{src}/", f"{dst}/", delete=True, force_delete=True)
    os.chmod(src / "closed", 0o755)
    assert keys(dst) == {"a", "closed", "closed/x", "closed/mine", "gone", "z", "z/y"}
    assert [os.path.basename(error.path.rstrip("/")) for error in partial.value.errors] == ["closed"]


def test_the_command_line_ends_with_23(src, dst, command):
    build(src, {"a": "1", "bad": File("secret", mode=0)})
    done = run([*with_means(unprivileged=True), *command, f"{src}/", f"{dst}/"])
    assert done.returncode == 23
    assert "bad" in done.stderr and "ermission denied" in done.stderr
    assert keys(dst) == {"a"}


def test_a_directory_that_may_not_be_written_is_recorded(src, dst):
    build(src, {"a": "1", "locked/f": "2", "z": "3"})
    build(dst, {"locked/old": "x"})
    os.chmod(dst / "locked", 0o555)
    stats = sync_unprivileged(f"{src}/", f"{dst}/", preserve_permissions=False, on_error="collect")
    os.chmod(dst / "locked", 0o755)
    assert keys(dst) >= {"a", "z", "locked", "locked/old"}
    assert stats.success == ("locked/f" in keys(dst))


def test_a_destination_that_may_not_be_written_is_an_error(src, dst):
    build(src, {"a": "1"})
    build(dst, {"b": "2"})
    os.chmod(dst, 0o555)
    with pytest.raises((sypy.PartialSyncError, PermissionError)):
        sync_unprivileged(f"{src}/", f"{dst}/", preserve_permissions=False)
    os.chmod(dst, 0o755)
    assert keys(dst) == {"b"}


def test_a_file_system_mounted_read_only_is_an_error(src, mount):
    place = mount("tmpfs", size="1m")
    build(src, {"a": "new content", "z": "1"})
    build(place, {"a": "old"})
    run(["mount", "-o", "remount,ro", place])
    with pytest.raises(sypy.SyncError):
        sypy.sync(f"{src}/", f"{place}/", delete=True)
    assert keys(place) == {"a"} and text(place / "a") == "old"


# Files that vanish, grow, shrink and change.


def test_files_that_vanish_are_recorded_and_the_rest_arrives(src, dst, command):
    build(src, {f"f{n:02}": os.urandom(100_000) for n in range(40)})
    whole = {key: (src / key).read_bytes() for key in keys(src)}
    build(dst, {"gone": "x"})
    with started([*command, f"{src}/", f"{dst}/", "--bwlimit", "1MB", "--retry", "0"]) as process:
        wait_until(lambda: len(keys(dst)) > 2)
        vanished = sorted(keys(src) - keys(dst))[-20:]
        for key in vanished:
            (src / key).unlink()
        process.communicate(timeout=30)
    arrived = keys(dst) - {"gone"}
    assert arrived >= keys(src)
    assert all((dst / key).read_bytes() == whole[key] for key in arrived)
    assert process.returncode == (24 if len(arrived) < 40 else 0)


@pytest.fixture
def restless(src):
    """Rewrites `src/f` in place, 8 MB of A, then of B …; at no moment are there three letters in it. Set it to stop."""
    size, stop = 8_000_000, threading.Event()
    build(src, {"f": b"A" * size, "quiet": "1"})

    def rewrite_forever():
        with open(src / "f", "r+b", buffering=0) as file:
            for letter in range(10**9):
                for offset in range(0, size, 100_000):
                    if stop.is_set():
                        return
                    os.pwrite(file.fileno(), bytes([65 + letter % 26]) * 100_000, offset)
                    time.sleep(0.0005)

    writer = threading.Thread(target=rewrite_forever)
    writer.start()
    yield stop
    stop.set()
    writer.join()


def test_a_file_that_never_rests_is_never_copied_torn(src, dst, restless):
    build(dst, {"f": "old"})
    stats = sypy.sync(f"{src}/", f"{dst}/", bwlimit="40MB", retry=2, retry_delay=0.05, on_error="collect")
    assert text(dst / "f") == "old"
    (error,) = stats.errors
    assert isinstance(error, sypy.SourceChangedError) and error.path.endswith("f")
    assert stats.retries >= 1
    assert text(dst / "quiet") == "1" and not leftovers(dst)


def test_a_file_that_comes_to_rest_is_copied_by_a_retry(src, dst, restless):
    threading.Timer(0.6, restless.set).start()
    stats = sypy.sync(f"{src}/", f"{dst}/", bwlimit="40MB", retry=20, retry_delay=0.05)
    assert stats.success
    assert (dst / "f").read_bytes() == (src / "f").read_bytes()


@pytest.mark.parametrize("options", [{}, {"checksum": True}, {"verify": True}, {"sparse": False}], ids=str)
def test_whatever_arrives_was_once_whole(src, dst, restless, options):
    for _ in range(3):
        sypy.sync(f"{src}/", f"{dst}/", on_error="collect", retry=1, retry_delay=0.01, **options)
    if not (dst / "f").exists():
        return
    content = (dst / "f").read_bytes()
    # One round of the writer may be caught between two letters, never a copy that took its time over several.
    assert len(content) == 8_000_000 and len(set(content)) <= 2


def test_a_log_that_grows_is_copied_up_to_some_moment(src, dst):
    build(src, {"log": ""})
    stop = threading.Event()

    def append():
        with open(src / "log", "ab", buffering=0) as file:
            n = 0
            while not stop.is_set():
                file.write(b"%09d\n" % n)
                n += 1

    writer = threading.Thread(target=append)
    writer.start()
    try:
        for _ in range(10):
            sypy.sync(f"{src}/", f"{dst}/", on_error="collect", retry=1, retry_delay=0.01)
    finally:
        stop.set()
        writer.join()
    assert leftovers(dst) == []
    copied = (dst / "log").read_bytes() if (dst / "log").exists() else b""
    assert copied == b"".join(b"%09d\n" % n for n in range(len(copied) // 10))
    sypy.sync(f"{src}/", f"{dst}/")
    assert_same(src, dst)


def test_a_file_that_shrinks_to_nothing_while_it_is_copied(src, dst):
    build(src, {"f": os.urandom(4_000_000)})
    build(dst, {"f": "old"})
    threading.Timer(0.3, os.truncate, (src / "f", 0)).start()
    stats = sypy.sync(f"{src}/", f"{dst}/", bwlimit="4MB", retry=5, retry_delay=0.05, on_error="collect")
    assert (dst / "f").read_bytes() == b"" if stats.success else text(dst / "f") == "old"


# No space.


def test_a_full_disk_keeps_the_old_files(src, mount):
    place = mount("tmpfs", size="1m")
    build(src, {"big": os.urandom(3 << 20), "changed": os.urandom(900_000), "small": "1"})
    build(place, {"big": "old", "changed": b"o" * 500_000})
    with pytest.raises(sypy.SyncError) as full:
        sypy.sync(f"{src}/", f"{place}/")
    assert text(place / "big") == "old"
    assert (place / "changed").read_bytes() in (b"o" * 500_000, (src / "changed").read_bytes())
    assert leftovers(place) == []
    errors = getattr(full.value, "errors", [full.value])
    assert any(isinstance(error, sypy.NoSpaceError) for error in errors)


def test_a_full_disk_ends_with_23_and_the_next_run_goes_on(src, mount, command):
    place = mount("tmpfs", size="1m")
    build(src, {f"f{n:02}": os.urandom(100_000) for n in range(20)})
    done = run([*command, f"{src}/", f"{place}/"])
    assert done.returncode not in (0, 1, 101) and "o space left" in done.stderr
    assert leftovers(place) == []
    run(["mount", "-o", "remount,size=8m", place])
    assert run([*command, f"{src}/", f"{place}/"]).returncode == 0
    assert_same(src, place)


def test_a_file_system_without_inodes_is_a_full_one(src, mount):
    place = mount("tmpfs", size="8m", options=["nr_inodes=12"])
    build(src, {f"f{n:02}": "1" for n in range(30)})
    with pytest.raises(sypy.PartialSyncError) as full:
        sypy.sync(f"{src}/", f"{place}/")
    assert all(isinstance(error, sypy.NoSpaceError) for error in full.value.errors)
    assert leftovers(place) == []


def test_a_limit_on_file_size_is_an_error_and_no_signal(src, dst):
    build(src, {"big": os.urandom(3 << 20), "small": "1"})
    build(dst, {"big": "old"})
    stats = sync_in_child(f"{src}/", f"{dst}/", means={"fsize": 1 << 20}, on_error="collect")
    assert [error.path.rpartition("/")[2] for error in stats.errors] == ["big"]
    assert (text(dst / "big"), text(dst / "small")) == ("old", "1")
    assert leftovers(dst) == []


# Too many open files.


@pytest.mark.parametrize("limit", [24, 32, 48, 64, 128])
def test_few_open_files_lose_nothing(src, dst, limit):
    build(src, {f"{'/'.join(f'd{n}' for n in range(depth))}/f{depth}": "1" for depth in range(1, 60)})
    build(src, {f"wide{n:02}/f": "1" for n in range(60)})
    build(dst, {"d0/d1/mine": "1", "gone": "1"})
    stats = sync_in_child(
        f"{src}/", f"{dst}/", means={"nofile": limit}, delete=True, force_delete=True, on_error="collect"
    )
    if stats.success:
        assert_same(src, dst)
    else:
        assert {error.errno for error in stats.errors} == {errno.EMFILE}
    sypy.sync(f"{src}/", f"{dst}/", delete=True, force_delete=True)
    assert_same(src, dst)


def test_64_open_files_are_enough(src, dst):
    build(src, {f"{'/'.join(f'd{n}' for n in range(depth))}/f{depth}": "1" for depth in range(1, 100)})
    sync_in_child(f"{src}/", f"{dst}/", means={"nofile": 64})
    assert_same(src, dst)


# After a failure, the next run picks up.


def test_the_next_run_finishes_what_one_left(src, dst):
    build(src, {"a": "1", "bad": File("later", mode=0), "closed/b": "2"})
    os.chmod(src / "closed", 0)
    sync_unprivileged(f"{src}/", f"{dst}/", on_error="collect")
    os.chmod(src / "closed", 0o755)
    os.chmod(src / "bad", 0o644)
    assert sync_unprivileged(f"{src}/", f"{dst}/").files_created == 2
    assert_same(src, dst)


def test_a_destination_changed_by_someone_else_meanwhile_is_not_mixed(src, dst):
    build(src, {f"f{n:02}": os.urandom(100_000) for n in range(20)})
    sypy.sync(f"{src}/", f"{dst}/")
    for n in range(20):
        rewrite(src / f"f{n:02}", os.urandom(100_001), WHEN + 1)
    stop = threading.Event()

    def meddle():
        while not stop.is_set():
            for n in range(20):
                (dst / f"f{n:02}").unlink(missing_ok=True)
                time.sleep(0.001)

    meddler = threading.Thread(target=meddle)
    meddler.start()
    try:
        sypy.sync(f"{src}/", f"{dst}/", on_error="collect", bwlimit="4MB")
    finally:
        stop.set()
        meddler.join()
    sypy.sync(f"{src}/", f"{dst}/")
    assert snapshot(dst) == snapshot(src)
