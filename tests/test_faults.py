"""Errors injected into one system call at a time: whichever fails, the old file or the new one stands there whole."""

import re

import pytest

from running import run
from trees import WHEN, File, assert_same, build, leftovers, rewrite, snapshot

READING = "?read,pread64,?preadv,?readv,copy_file_range,?sendfile"
WRITING = "?write,pwrite64,?pwritev,?writev,copy_file_range,?sendfile"
RENAMING = "?rename,renameat,renameat2,?link,linkat"
LISTING = "getdents64"
OTHERS = {
    "open": "openat,?openat2",
    "stat": "?newfstatat,statx,?fstat",
    "mkdir": "?mkdir,mkdirat",
    "unlink": "?unlink,unlinkat",
    "times": "utimensat",
    "modes": "fchmod,fchmodat,?fchmodat2",
    "truncate": "ftruncate",
    "allocate": "fallocate",
    "seek": "lseek",
    "symlink": "?symlink,symlinkat",
    "close": "close",
}

OLD = {"changed": "old and short", "d/changed": "old", "gone": "x", "same": "same", "swap/f": "1", "link": "a file"}
NEW = {
    "changed": "new content", "d/changed": b"new" * 5000, "d/new": b"n" * 300_000, "same": "same", "swap": "now a file",
    "mode": File("1", mode=0o640), "deep/er/f": "1",
}  # fmt: skip


@pytest.fixture
def two(src, dst):
    build(src, NEW)
    build(dst, OLD)
    return src, dst


def inject(calls: str, error: str, when: int | str) -> tuple[str, str]:
    return f"trace={calls}", f"inject={calls}:error={error}:when={when}"


def every_file_is_whole(src, dst, before) -> None:
    now, new = snapshot(dst), snapshot(src)
    for key, node in now.items():
        if node["kind"] == "file" and not key.rpartition("/")[2].startswith(".sypy-"):
            contents = [tree[key].get("content") for tree in (before, new) if key in tree]
            assert node["content"] in contents, f"{key} is neither the old nor the new one"


def run_with_fault(sy_binary, strace, src, dst, calls, error, when, log, *options) -> bool:
    """One run with one failing call, then the promises. Says whether the call was reached at all."""
    before = snapshot(dst)
    sources = snapshot(src)
    done = run([*strace(*inject(calls, error, when), log=log), sy_binary, f"{src}/", f"{dst}/", *options], timeout=60)
    assert done.returncode >= 0 and done.returncode != 101, f"died: {done.returncode}\n{done.stderr}"
    every_file_is_whole(src, dst, before)
    assert snapshot(src) == sources
    if done.returncode == 0 and "--delete" in options:
        assert_same(src, dst)
    return "(INJECTED)" in log.read_text(errors="replace")


def sweep(sy_binary, strace, two, tmp_path, calls, error, steps) -> int:
    """Lets the first call fail, the second, …; after each run another one must put everything right."""
    src, dst = two
    reached = 0
    for when in steps:
        run(["rm", "-rf", dst])
        build(dst, OLD)
        if not run_with_fault(sy_binary, strace, src, dst, calls, error, when, tmp_path / "log", *FORCE):
            break
        reached += 1
        done = run([sy_binary, f"{src}/", f"{dst}/", "--delete", "--force-delete"])
        assert done.returncode == 0, done.stderr
        assert_same(src, dst)
        assert not leftovers(dst)
    return reached


STEPS = range(1, 13)
FORCE = ("--delete", "--force-delete", "--retry=0")
MANY_STEPS = range(1, 400)


@pytest.mark.parametrize(
    ("calls", "error"),
    [
        (WRITING, "EIO"),
        (WRITING, "ENOSPC"),
        (WRITING, "EDQUOT"),
        (RENAMING, "EIO"),
        (RENAMING, "EACCES"),
        (LISTING, "EIO"),
        *((calls, "EIO") for calls in OTHERS.values()),
        (OTHERS["open"], "EMFILE"),
        (OTHERS["open"], "EACCES"),
        (OTHERS["open"], "ENOSYS"),
        (OTHERS["close"], "ENOSPC"),
    ],
)
def test_one_failing_call_loses_nothing(sy_binary, strace, two, tmp_path, calls, error):
    reached = sweep(sy_binary, strace, two, tmp_path, calls, error, STEPS)
    if calls in (WRITING, RENAMING, LISTING, OTHERS["open"], OTHERS["close"]):
        assert reached, f"no {calls} was ever made"


@pytest.mark.slow
@pytest.mark.parametrize("calls", [READING, WRITING, RENAMING, LISTING, *OTHERS.values()])
@pytest.mark.parametrize("error", ["EIO", "ENOMEM", "EINTR"])
def test_any_failing_call_loses_nothing(sy_binary, strace, two, tmp_path, calls, error):
    sweep(sy_binary, strace, two, tmp_path, calls, error, MANY_STEPS)


ALWAYS = [(WRITING, "ENOSPC"), (RENAMING, "EIO"), (OTHERS["open"], "EMFILE"), ("fchmod,utimensat", "EPERM")]


@pytest.mark.parametrize(("calls", "error"), ALWAYS)
def test_a_call_that_always_fails_loses_nothing(sy_binary, strace, two, tmp_path, calls, error):
    src, dst = two
    run_with_fault(sy_binary, strace, src, dst, calls, error, "3+", tmp_path / "log", "--retry=0")


def test_a_file_that_cannot_be_read_is_recorded_and_the_rest_arrives(sy_binary, strace, two, tmp_path):
    src, dst = two
    log = tmp_path / "log"
    prefix = [*strace(*inject(READING, "EIO", "1+"), log=log), "-P", str(src / "changed")]
    done = run([*prefix, sy_binary, f"{src}/", f"{dst}/", *FORCE])
    assert "(INJECTED)" in log.read_text()
    assert done.returncode == 23
    assert re.search(r"changed.*Input/output error", done.stderr)
    assert (dst / "changed").read_text() == "old and short"
    assert (dst / "d/new").read_bytes() == b"n" * 300_000
    assert not leftovers(dst)


def test_a_comparison_that_cannot_read_is_recorded(sy_binary, strace, src, dst, tmp_path):
    build(src, {"f": "content", "g": "content"})
    build(dst, {"f": "c0ntent", "g": "c0ntent"})
    log = tmp_path / "log"
    prefix = [*strace(*inject(READING, "EIO", "1+"), log=log), "-P", str(dst / "f")]
    done = run([*prefix, sy_binary, f"{src}/", f"{dst}/", "--checksum", "--retry=0"])
    assert "(INJECTED)" in log.read_text()
    assert (dst / "g").read_text() == "content"
    assert (dst / "f").read_text() == ("content" if done.returncode == 0 else "c0ntent")


@pytest.mark.parametrize("side", ["src", "dst"])
def test_a_listing_that_fails_half_way_deletes_nothing(sy_binary, strace, src, dst, tmp_path, side):
    build(src, {"a": "1", **{f"d/f{n:04}": "1" for n in range(3000)}})
    build(dst, {"gone": "x", "d/gone": "x", **{f"d/f{n:04}": "1" for n in range(3000)}})
    log = tmp_path / "log"
    prefix = [*strace(*inject(LISTING, "EIO", 2), log=log), "-P", str(src.parent / side / "d")]
    done = run([*prefix, sy_binary, f"{src}/", f"{dst}/", *FORCE])
    assert "(INJECTED)" in log.read_text()
    assert done.returncode == 23
    assert (dst / "gone").exists() and (dst / "d/gone").exists()
    assert len(list((dst / "d").iterdir())) == 3001


def test_a_file_whose_close_fails_is_not_taken_for_written(sy_binary, strace, src, dst, tmp_path):
    """NFS and quotas report a full disk at close. Each close fails in turn; those of temporary files matter."""
    build(src, {"f": "new content"})
    build(dst, {"f": "old"})
    log = tmp_path / "log"
    run([*strace("trace=close", log=log), "-y", sy_binary, f"{src}/", f"{dst}/"])
    closes = [line for line in log.read_text().splitlines() if "close(" in line]
    assert any(".sypy-" in line for line in closes), "no temporary file was ever closed"
    for when in range(1, len(closes) + 1):
        rewrite(src / "f", f"content {when:05}", WHEN + when)
        before = (dst / "f").read_text()
        prefix = [*strace(*inject("close", "ENOSPC", when), log=log), "-y"]
        done = run([*prefix, sy_binary, f"{src}/", f"{dst}/", "--retry=0"])
        failed = [line for line in log.read_text().splitlines() if "(INJECTED)" in line and ".sypy-" in line]
        if failed:
            assert done.returncode != 0, failed
            assert (dst / "f").read_text() == before
