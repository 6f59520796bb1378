"""What is tried again: a call that failed once succeeds, and what changed meanwhile is not taken for what it was."""

import json
import os

import pytest

from running import started, wait_until
from trees import WHEN, File, Hard, assert_same, build, keys, leftovers, snapshot, text

RENAMING = "renameat,renameat2"


def failing_once(calls: str) -> tuple[str, str]:
    """For `strace`: the first such call of each thread finds the file busy."""
    return f"trace={calls}", f"inject={calls}:error=EBUSY:when=1"


@pytest.fixture
def sync_with_a_failure(sync, strace, tmp_path):
    """A run in which some call fails once: `sync_with_a_failure("linkat", "-H")`."""

    def sync_with_a_failure(calls, *options):
        log = tmp_path / "log"
        done = sync("--retry-delay", "0.1", *options, prefix=strace(*failing_once(calls), log=log))
        assert "(INJECTED)" in log.read_text(), f"{calls} was never called"
        return done

    return sync_with_a_failure


@pytest.fixture
def sync_and_meanwhile(sy_binary, src, dst, strace, tmp_path):
    """A run that can't put `f` in place at first; `change()` happens before it tries again. Exit code and errors."""

    def sync_and_meanwhile(change, *options):
        log = tmp_path / "log"
        prefix = strace(*failing_once(RENAMING), log=log)
        with started([*prefix, sy_binary, f"{src}/", f"{dst}/", "--json", "--retry-delay", "0.7", *options]) as process:
            wait_until(lambda: log.exists() and "(INJECTED)" in log.read_text())
            change()
            lines, _ = process.communicate(timeout=30)
        events = [json.loads(line) for line in lines.splitlines()]
        return process.returncode, [event for event in events if event["event"] == "error"]

    return sync_and_meanwhile


# Calls that fail once.


@pytest.mark.parametrize("before", [{}, {"f": "old"}], ids=["new", "changed"])
def test_a_file_that_could_not_be_put_in_place_is_tried_again(sync_with_a_failure, src, dst, before):
    build(src, {"f": "new content"})
    build(dst, before)
    assert sync_with_a_failure(RENAMING).returncode == 0
    assert_same(src, dst)
    assert leftovers(dst) == []


@pytest.mark.parametrize("calls", ["linkat", RENAMING])
def test_a_file_that_is_kept_aside_is_tried_again(sync_with_a_failure, src, dst, tmp_path, calls):
    build(src, {"f": "new content"})
    build(dst, {"f": "old"})
    done = sync_with_a_failure(calls, "--backup-dir", tmp_path / "backup")
    assert done.returncode == 0, done.stderr
    assert_same(src, dst)
    assert [text(path) for path in (tmp_path / "backup").glob("*/f")] == ["old"]


def one_file(root, names) -> bool:
    return len({os.stat(root / name).st_ino for name in names}) == 1


@pytest.mark.parametrize("before", [{}, {"a": "1", "b": "1"}], ids=["new", "apart"])
def test_a_link_that_could_not_be_made_is_tried_again(sync_with_a_failure, src, dst, before):
    build(src, {"a": "1", "b": Hard("a"), "c": Hard("a")})
    build(dst, before)
    done = sync_with_a_failure("linkat", "-H")
    assert done.returncode == 0, done.stderr
    assert one_file(dst, "abc")


@pytest.mark.parametrize("before", [{}, {"a": "old!", "b": "1"}], ids=["new", "changed"])
def test_names_are_linked_although_the_first_of_them_had_to_be_tried_again(sync_with_a_failure, src, dst, before):
    build(src, {"a": "1", "b": Hard("a"), "d/c": Hard("a")})
    build(dst, before)
    done = sync_with_a_failure(RENAMING, "-H")
    assert done.returncode == 0, done.stderr
    assert one_file(dst, ["a", "b", "d/c"])
    assert_same(src, dst)


# What changes before the next try.


def becomes_a_directory(path):
    path.unlink()
    build(path, {"child": "1"})


def becomes_a_fifo(path):
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize("options", [[], ["-D"], ["-c"]], ids=" ".join)
@pytest.mark.parametrize("change", [becomes_a_directory, becomes_a_fifo])
def test_a_source_file_that_is_none_any_more_replaces_nothing(sync_and_meanwhile, src, dst, change, options):
    build(src, {"f": "new content", "other": "1"})
    build(dst, {"f": "precious", "other": "1"})
    before = snapshot(dst, untouched=True)["f"]
    code, errors = sync_and_meanwhile(lambda: change(src / "f"), *options)
    assert (code, [os.path.basename(error["path"]) for error in errors]) == (23, ["f"])
    assert snapshot(dst, untouched=True)["f"] == before
    assert keys(dst) == {"f", "other"}


@pytest.mark.parametrize("options", [[], ["--update"], ["--checksum"]], ids=" ".join)
@pytest.mark.parametrize("before", [{}, {"f": File("old", mtime_ns=WHEN - 1)}], ids=["new", "changed"])
def test_what_someone_wrote_at_the_destination_is_not_overwritten(sync_and_meanwhile, src, dst, before, options):
    build(src, {"f": "new content"})
    build(dst, before)
    code, errors = sync_and_meanwhile(lambda: (dst / "f").write_text("their work"), *options)
    assert (code, [error["kind"] for error in errors]) == (23, ["conflict"])
    assert text(dst / "f") == "their work"
    assert leftovers(dst) == []


def test_what_someone_wrote_at_the_destination_is_not_overwritten_by_a_link(sync_and_meanwhile, src, dst):
    build(src, {"f": "new content", "g": Hard("f")})
    build(dst, {"f": "old", "g": "old"})
    sync_and_meanwhile(lambda: (dst / "g").write_text("their work"), "-H")
    assert text(dst / "g") == "their work"


def test_a_source_that_changed_before_the_next_try_arrives_as_it_is_now(sync_and_meanwhile, src, dst):
    build(src, {"f": "new content"})
    build(dst, {"f": "old"})
    code, errors = sync_and_meanwhile(lambda: (src / "f").write_text("newer"))
    assert (code, errors) == (0, [])
    assert_same(src, dst)
