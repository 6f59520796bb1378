"""`durable`, `verify` and `resume` do what they say."""

import os
import re
import time

import pytest

import sypy
from running import run, started, wait_until
from trees import Link, assert_same, build, keys, leftovers

# durable


def flushes(log) -> list[str]:
    return re.findall(r"(syncfs|fsync|fdatasync|sync)\(", log.read_text())


def test_durable_flushes_before_it_says_done(src, dst, sy_binary, strace, tmp_path):
    build(src, {f"d{n}/f{n}": "content" for n in range(50)})
    log = tmp_path / "log"
    done = run(
        [
            *strace("trace=?sync,syncfs,fsync,fdatasync,?write", log=log),
            "-y",
            sy_binary,
            f"{src}/",
            f"{dst}/",
            "--durable",
        ]
    )
    assert done.returncode == 0, done.stderr
    assert 1 <= len(flushes(log)) < 50
    assert_same(src, dst)


def test_without_durable_nothing_waits_for_the_disk(src, dst, sy_binary, strace, tmp_path):
    build(src, {f"f{n}": "content" for n in range(50)})
    log = tmp_path / "log"
    run([*strace("trace=?sync,syncfs,fsync,fdatasync", log=log), "-y", sy_binary, f"{src}/", f"{dst}/"])
    assert [line for line in log.read_text().splitlines() if str(dst) in line] == []


def test_a_flush_that_fails_is_no_success(src, dst, sy_binary, strace, tmp_path):
    build(src, {"f": "content"})
    log = tmp_path / "log"
    calls = "syncfs,fsync,fdatasync"
    done = run(
        [*strace(f"trace={calls}", f"inject={calls}:error=EIO", log=log), sy_binary, f"{src}/", f"{dst}/", "--durable"]
    )
    assert "(INJECTED)" in log.read_text()
    assert done.returncode not in (0, 101)
    assert "nput/output error" in done.stderr


# verify


def test_verify_reads_every_copy_back(src, dst):
    build(src, {"a": "x" * 1000, "d/b": "y" * 2000, "empty": "", "l": Link("a"), "same": "1"})
    build(dst, {"same": "1"})
    stats = sypy.sync(f"{src}/", f"{dst}/", verify=True)
    assert stats.files_verified == 3 and stats.verification_failures == 0
    assert stats.bytes_read >= 3000
    assert_same(src, dst)


def test_verify_of_nothing_reads_nothing(src, dst):
    build(src, {"a": "x" * 1000})
    sypy.sync(f"{src}/", f"{dst}/")
    stats = sypy.sync(f"{src}/", f"{dst}/", verify=True)
    assert (stats.files_verified, stats.bytes_read) == (0, 0)


def test_verify_catches_a_write_that_was_lost(src, dst, sy_binary, strace, tmp_path):
    """The kernel is made to say that it copied what it did not copy."""
    build(src, {"f": os.urandom(3_000_000)})
    build(dst, {"f": "old"})
    log = tmp_path / "log"
    lost = "inject=copy_file_range:retval=100000:when=1"
    done = run(
        [*strace("trace=copy_file_range", lost, log=log), sy_binary, f"{src}/", f"{dst}/", "--verify", "--retry=0"]
    )
    if "(INJECTED)" not in log.read_text():
        pytest.skip("no copy_file_range on this file system")
    if done.returncode == 0:
        assert_same(src, dst)
    else:
        assert done.returncode == 23 and (dst / "f").read_text() == "old"
    assert leftovers(dst) == []


# resume


@pytest.mark.parametrize("resume", [[], ["--no-resume"]], ids=["resume", "no-resume"])
def test_an_interrupted_copy_is_finished_by_the_next_run(src, dst, command, resume):
    build(src, {"big": os.urandom(6_000_000), "other": "1"})
    with started([*command, f"{src}/", f"{dst}/", "--bwlimit", "3MB", *resume]) as process:
        wait_until(lambda: dst.exists() and leftovers(dst))
        time.sleep(0.5)
        process.terminate()
        process.communicate(timeout=10)
    assert run([*command, f"{src}/", f"{dst}/", *resume]).returncode == 0
    assert_same(src, dst)
    assert leftovers(dst) == []


def test_part_of_another_file_is_never_taken_for_a_beginning(src, dst, command):
    build(src, {"big": b"1" * 6_000_000})
    with started([*command, f"{src}/", f"{dst}/", "--bwlimit", "3MB"]) as process:
        wait_until(lambda: dst.exists() and leftovers(dst))
        time.sleep(0.5)
        process.terminate()
        process.communicate(timeout=10)
    os.remove(src / "big")
    build(src, {"big": b"2" * 6_000_000})
    assert run([*command, f"{src}/", f"{dst}/"]).returncode == 0
    assert_same(src, dst)


def test_part_of_a_file_is_not_left_behind_when_its_source_is_gone(src, dst, command):
    build(src, {"big": os.urandom(6_000_000), "other": "1"})
    with started([*command, f"{src}/", f"{dst}/", "--bwlimit", "3MB"]) as process:
        wait_until(lambda: dst.exists() and leftovers(dst))
        process.terminate()
        process.communicate(timeout=10)
    os.remove(src / "big")
    run([*command, f"{src}/", f"{dst}/", "--delete", "--force-delete"])
    assert keys(dst) == {"other"}
