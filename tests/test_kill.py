"""A run that is killed or interrupted leaves whole files, and the next run does the rest."""

import os
import random
import signal
import time

import pytest

from running import run, started, wait_until
from trees import WHEN, File, Hard, Link, assert_same, build, keys, leftovers, rewrite, snapshot


def big_change(src, dst, seed=0):
    """Two trees with much to do between them: new, changed and gone files, kinds swapped, links."""
    content = random.Random(seed)
    build(src, {f"d{n % 20}/f{n}": content.randbytes(content.randrange(20_000)) for n in range(400)})
    build(
        src,
        {
            "swap-a/f": "1",
            "swap-b": "2",
            "link": Link("d1"),
            "big": content.randbytes(3_000_000),
            "hard": Hard("swap-b"),
        },
    )
    old = {f"d{n % 20}/f{n}": content.randbytes(content.randrange(20_000)) for n in range(0, 400, 3)}
    build(dst, {key: File(value, mtime_ns=WHEN - 1) for key, value in old.items()})
    build(dst, {"swap-a": "1", "swap-b/f": "2", "big": "old", **{f"gone{n}/f": "x" for n in range(30)}})


def assert_every_file_is_whole(src, dst, before):
    new = snapshot(src)
    for key, node in snapshot(dst).items():
        if node["kind"] == "file" and not key.rpartition("/")[2].startswith(".sypy-"):
            assert node["content"] in [tree[key].get("content") for tree in (before, new) if key in tree], key


FORCE = ["--delete", "--force-delete", "-H"]


@pytest.mark.parametrize("round_", [*range(8), *(pytest.param(n, marks=pytest.mark.slow) for n in range(8, 150))])
def test_killed_at_any_moment_and_run_again(src, dst, sy_binary, round_):
    big_change(src, dst, round_)
    before = snapshot(dst)
    dice = random.Random(round_)
    for _ in range(2):
        with started(
            [sy_binary, f"{src}/", f"{dst}/", *FORCE, *dice.choice([[], ["--durable"], ["--checksum"], ["-j1"]])]
        ) as process:
            time.sleep(dice.random() * dice.choice([0.02, 0.08, 0.3]))
            process.kill()
            process.wait()
        assert_every_file_is_whole(src, dst, before)
    done = run([sy_binary, f"{src}/", f"{dst}/", *FORCE])
    assert done.returncode == 0, done.stderr
    assert_same(src, dst, hardlinks=True)
    assert leftovers(dst) == []


def test_killed_in_the_middle_of_a_file_and_run_again(src, dst, command):
    build(src, {"big": os.urandom(4_000_000), "d/big": os.urandom(4_000_000)})
    build(dst, {"big": "old"})
    before = snapshot(dst)
    with started([*command, f"{src}/", f"{dst}/", "--bwlimit", "2MB"]) as process:
        wait_until(lambda: dst.exists() and leftovers(dst))
        time.sleep(0.3)
        process.kill()
        process.wait()
    assert_every_file_is_whole(src, dst, before)
    done = run([*command, f"{src}/", f"{dst}/"])
    assert done.returncode == 0, done.stderr
    assert_same(src, dst)
    assert leftovers(dst) == []


@pytest.fixture
def torn(src, dst, command):
    """A destination in which a killed run left a temporary file, in `d/`; the source has only `a` any more."""
    build(src, {"a": "1", "d/big": os.urandom(4_000_000)})
    with started([*command, f"{src}/", f"{dst}/", "--bwlimit", "1MB"]) as process:
        wait_until(lambda: dst.exists() and leftovers(dst))
        process.kill()
        process.wait()
    assert leftovers(dst)
    os.remove(src / "d/big")
    return dst


@pytest.mark.parametrize("delete", [[], ["--delete"]], ids=["", "delete"])
def test_what_a_killed_run_left_is_cleared_also_where_nothing_is_to_do(src, torn, command, delete):
    for _ in range(2):
        assert run([*command, f"{src}/", f"{torn}/", *delete]).returncode == 0
    assert keys(torn) == {"a", "d"}


def test_what_a_killed_run_left_is_not_copied_on(torn, tmp_path, command):
    assert run([*command, f"{torn}/", f"{tmp_path}/next/"]).returncode == 0
    assert leftovers(tmp_path / "next") == []
    assert leftovers(torn), "a source is only read"


def test_a_file_of_the_user_that_looks_a_little_like_ours_is_a_file(src, dst, command):
    build(src, {".sypy-notes": "mine", "d/.sypy": "mine"})
    for _ in range(2):
        assert run([*command, f"{src}/", f"{dst}/", "--delete"]).returncode == 0
    assert_same(src, dst)


def test_a_source_that_changed_after_the_kill_is_copied_as_it_is_now(src, dst, command):
    build(src, {"big": b"1" * 4_000_000})
    with started([*command, f"{src}/", f"{dst}/", "--bwlimit", "2MB"]) as process:
        wait_until(lambda: dst.exists() and leftovers(dst))
        time.sleep(0.5)
        process.kill()
        process.wait()
    rewrite(src / "big", b"2" * 4_000_000, WHEN)
    assert run([*command, f"{src}/", f"{dst}/"]).returncode == 0
    assert_same(src, dst)


SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
@pytest.mark.parametrize("files", [{f"f{n:03}": 50_000 for n in range(100)}, {"one": 20_000_000}], ids=["many", "one"])
def test_a_signal_stops_the_run_within_a_second_and_cleans_up(src, dst, command, number, files):
    build(src, {name: os.urandom(size) for name, size in files.items()})
    build(dst, {"gone": "x"})
    before = snapshot(dst)
    with started(
        [*command, f"{src}/", f"{dst}/", "--bwlimit", "1MB", "--delete", "--force-delete", "--no-resume"]
    ) as process:
        wait_until(lambda: len(keys(dst)) > 1)
        process.send_signal(number)
        sent = time.monotonic()
        _, errors = process.communicate(timeout=10)
        took = time.monotonic() - sent
    assert took < 1.0, f"it took {took:.2f} s"
    assert process.returncode in (130, 128 + number)
    assert b"Traceback" not in errors and b"panicked" not in errors
    assert leftovers(dst) == []
    assert (dst / "gone").exists()
    assert_every_file_is_whole(src, dst, before)


def test_ctrl_c_while_two_huge_files_are_compared(src, dst, command):
    for root in (src, dst):
        build(root, {"huge": "", "other": "1"})
        os.truncate(root / "huge", 40 << 30)
        os.utime(root / "huge", ns=(WHEN, WHEN))
    with started([*command, f"{src}/", f"{dst}/", "--checksum"]) as process:
        time.sleep(0.7)
        process.send_signal(signal.SIGINT)
        sent = time.monotonic()
        process.communicate(timeout=30)
    assert time.monotonic() - sent < 1.0
    assert process.returncode in (0, 130)


def test_ctrl_c_in_a_large_tree(src, dst, command):
    for n in range(200):
        os.makedirs(src / f"d{n}")
        for m in range(100):
            (src / f"d{n}/{m}").touch()
    with started([*command, f"{src}/", f"{dst}/"]) as process:
        wait_until(lambda: dst.exists() and len(os.listdir(dst)) > 3)
        process.send_signal(signal.SIGINT)
        sent = time.monotonic()
        process.communicate(timeout=30)
    assert time.monotonic() - sent < 1.0
    assert leftovers(dst) == []
    assert process.returncode in (0, 130)
    assert run([*command, f"{src}/", f"{dst}/"]).returncode == 0
    assert snapshot(dst) == snapshot(src)


@pytest.mark.parametrize("dest", ["", "/", "/g"])
def test_killed_while_a_single_file_is_copied_and_run_again(sync, sy_binary, src, dst, dest):
    build(src, {"f": os.urandom(4_000_000)})
    dst.mkdir()
    with started([sy_binary, src / "f", f"{dst}{dest}", "--bwlimit", "1MB"]) as process:
        wait_until(lambda: leftovers(dst))
        process.kill()
        process.wait()
    assert leftovers(dst)
    assert sync(source=src / "f", dest=f"{dst}{dest}").returncode == 0
    name = dest.strip("/") or "f"
    assert keys(dst) == {name}
    assert (dst / name).read_bytes() == (src / "f").read_bytes()


@pytest.mark.slow
def test_a_signal_while_a_huge_directory_is_listed(sy_binary, shm_path):
    build(shm_path, {"src/": None, "dst/": None})
    for n in range(600_000):
        os.close(os.open(shm_path / f"src/file-{n:06}", os.O_CREAT | os.O_WRONLY))
    for after in (0.05, 0.2, 0.5):
        with started([sy_binary, f"{shm_path}/src/", f"{shm_path}/dst/"]) as process:
            time.sleep(after)
            process.send_signal(signal.SIGTERM)
            sent = time.monotonic()
            process.communicate(timeout=60)
        assert time.monotonic() - sent < 1.0, after
        assert leftovers(shm_path / "dst") == []
