"""Two runs into one destination at the same time: the second is refused."""

import os
import signal
from contextlib import contextmanager

import pytest

import sypy
from running import PYTHON_CLI, run, started, wait_until
from trees import assert_same, build, keys, leftovers


@contextmanager
def slow_run_into(src, dest):
    """A run that has begun to write into `dest` and takes a while."""
    build(src, {f"f{n:02}": os.urandom(100_000) for n in range(100)})
    with started([*PYTHON_CLI, f"{src}/", f"{dest}/", "--bwlimit", "1MB"]) as process:
        wait_until(lambda: dest.exists() and any(key.startswith("f") for key in keys(dest)))
        yield process
        assert process.poll() in (None, -signal.SIGKILL), "the first run should still be under way"


@pytest.fixture
def other(tmp_path):
    return build(tmp_path / "other", {"a": "1"})


def test_the_second_is_refused_and_changes_nothing(src, dst, other):
    with slow_run_into(src, dst):
        with pytest.raises(sypy.LockedError) as refused:
            sypy.sync(f"{other}/", f"{dst}/")
        assert str(dst) in str(refused.value)
        assert not (dst / "a").exists()


def test_the_command_line_says_so(src, dst, other, command):
    with slow_run_into(src, dst):
        done = run([*command, f"{other}/", f"{dst}/"])
        assert done.returncode not in (0, 101)
        assert str(dst) in done.stderr and "another run" in done.stderr


@pytest.mark.parametrize("inner", [True, False], ids=["inside", "around"])
def test_destinations_inside_each_other_are_one(src, tmp_path, other, inner):
    first, second = (tmp_path / "dst", tmp_path / "dst/sub") if inner else (tmp_path / "dst/sub", tmp_path / "dst")
    second.mkdir(parents=True, exist_ok=True)
    with slow_run_into(src, first), pytest.raises(sypy.LockedError):
        sypy.sync(f"{other}/", f"{second}/")


def test_another_way_to_name_a_destination_does_not_help(src, dst, other, tmp_path):
    dst.mkdir()
    os.symlink(dst, tmp_path / "link")
    with slow_run_into(src, dst):
        for name in (f"{tmp_path}/link/", f"{dst}/.", f"{tmp_path}/other/../dst/"):
            with pytest.raises(sypy.LockedError):
                sypy.sync(f"{other}/", name)


def test_other_destinations_are_free(src, dst, other, tmp_path):
    with slow_run_into(src, dst):
        sypy.sync(f"{other}/", f"{tmp_path}/dst-2/")
        sypy.sync(f"{src}/", f"{tmp_path}/dst-3/")
    assert keys(tmp_path / "dst-2") == {"a"}


def test_a_dry_run_does_not_hold_a_destination(other, dst):
    build(dst, {"b": "2"})
    sypy.sync(f"{other}/", f"{dst}/", dry_run=True)
    sypy.sync(f"{other}/", f"{dst}/")
    assert keys(dst) == {"a", "b"}


def test_a_run_that_was_killed_holds_nothing(src, dst, other):
    with slow_run_into(src, dst) as process:
        process.kill()
        process.wait()
        sypy.sync(f"{other}/", f"{dst}/")
        assert "a" in keys(dst) and leftovers(dst) == []


def test_a_run_that_failed_holds_nothing(src, dst, other):
    build(dst, {"x/full": "1"})
    build(src, {"x": "in the way"})
    with pytest.raises(sypy.PartialSyncError):
        sypy.sync(f"{src}/", f"{dst}/")
    sypy.sync(f"{other}/", f"{dst}/")


def test_threads_take_turns_or_are_refused(tmp_path, other):
    import threading

    build(other, {f"f{n}": os.urandom(1000) for n in range(300)})
    outcomes = []

    def sync():
        try:
            sypy.sync(f"{other}/", f"{tmp_path}/dst/")
            outcomes.append("done")
        except sypy.LockedError:
            outcomes.append("refused")

    threads = [threading.Thread(target=sync) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 6 and "done" in outcomes
    assert_same(other, tmp_path / "dst")
    assert leftovers(tmp_path / "dst") == []


@pytest.mark.parametrize("variable", ["XDG_STATE_HOME", "HOME"])
def test_the_second_is_refused_also_with_another_home(sy_binary, src, dst, other, tmp_path, monkeypatch, variable):
    monkeypatch.delenv("XDG_STATE_HOME")
    build(src, {f"f{n:02}": os.urandom(100_000) for n in range(100)})
    monkeypatch.setenv(variable, str(tmp_path / "home-1"))
    with started([sy_binary, f"{src}/", f"{dst}/", "--bwlimit", "1MB"]) as process:
        wait_until(lambda: dst.exists() and any(key.startswith("f") for key in keys(dst)))
        monkeypatch.setenv(variable, str(tmp_path / "home-2"))
        done = run([sy_binary, f"{other}/", f"{dst}/"])
        assert process.poll() is None
    assert done.returncode == 1 and "another run" in done.stderr, done.stderr
    assert "a" not in keys(dst)
