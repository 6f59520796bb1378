"""Another process swaps directories and files for symbolic links during a run: nothing goes through them."""

import subprocess
import sys
import time
from contextlib import contextmanager, suppress

import pytest

import sypy
from running import HERE
from trees import Link, build, snapshot

FOLDERS = [f"d{n}" for n in range(6)]


@contextmanager
def swapping(pairs):
    """Swaps the two of each pair for as long as the block runs."""
    command = [sys.executable, str(HERE / "swapper.py"), *(str(path) for pair in pairs for path in pair)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        if process.stdout.readline() != b"swapping\n":
            pytest.skip("this file system can't exchange two names")
        try:
            yield
        finally:
            process.stdin.close()
            process.wait(timeout=10)


@pytest.fixture
def seconds(request) -> float:
    return 30 if request.config.getoption("--slow") else 2.5


def run_for(seconds, source, dest, **options) -> int:
    """Runs again and again; failures are part of the game."""
    runs, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        with suppress(sypy.SyncError):
            sypy.sync(f"{source}/", f"{dest}/", on_error="collect", max_errors=0, retry=0, **options)
        runs += 1
    return runs


def contents(root) -> str:
    return "".join(str(node.get("content")) for node in snapshot(root).values())


def folder_of(word: str) -> dict[str, str]:
    return {f"{folder}/sub/f{n}": f"{word}{n}" for folder in FOLDERS for n in range(15)}


@pytest.fixture
def outside(tmp_path):
    return build(tmp_path / "outside", folder_of("SECRET"))


def links_to(outside, tmp_path, names):
    """Beside the trees, links that lead outside; returns their paths."""
    build(tmp_path / "links", {name.replace("/", "_"): Link(str(outside / name)) for name in names})
    return [tmp_path / "links" / name.replace("/", "_") for name in names]


@pytest.mark.parametrize("options", [{}, {"links": "follow"}, {"checksum": True}, {"ignore_times": True}], ids=str)
@pytest.mark.parametrize(
    "names", [FOLDERS, [f"{folder}/sub" for folder in FOLDERS], [f"{folder}/sub/f3" for folder in FOLDERS]]
)
def test_nothing_is_read_through_a_link_that_was_a_directory(src, dst, tmp_path, outside, names, options, seconds):
    build(src, folder_of("fine"))
    with swapping(zip([src / name for name in names], links_to(outside, tmp_path, names), strict=True)):
        deadline = time.monotonic() + seconds / 2
        while time.monotonic() < deadline:
            run_for(0.3, src, dst, delete=True, force_delete=True, **options)
            assert "SECRET" not in contents(dst)
            subprocess.run(["rm", "-rf", str(dst)], check=True)


@pytest.mark.parametrize("options", [{}, {"checksum": True}, {"ignore_times": True}, {"durable": True}], ids=str)
@pytest.mark.parametrize("names", [FOLDERS, [f"{folder}/sub" for folder in FOLDERS]], ids=["top", "below"])
def test_nothing_is_written_or_deleted_through_a_link_that_was_a_directory(src, dst, tmp_path, names, options, seconds):
    outside = build(
        tmp_path / "outside", {**folder_of("untouched"), **{f"{folder}/sub/extra": "untouched" for folder in FOLDERS}}
    )
    build(src, folder_of("new"))
    build(dst, {f"{folder}/sub/old{n}": "old" for folder in FOLDERS for n in range(15)})
    before = snapshot(outside, untouched=True)
    with swapping(zip([dst / name for name in names], links_to(outside, tmp_path, names), strict=True)):
        run_for(seconds / 2, src, dst, delete=True, force_delete=True, **options)
    assert snapshot(outside, untouched=True) == before


def test_modes_and_times_are_not_set_through_a_link_that_was_a_file(src, dst, tmp_path, seconds):
    outside = build(tmp_path / "outside", {f"f{n}": "untouched" for n in range(20)})
    build(src, {f"f{n}": "content" for n in range(20)})
    build(dst, {f"f{n}": "content" for n in range(20)})
    before = snapshot(outside, untouched=True)
    pairs = zip(
        [dst / f"f{n}" for n in range(20)], links_to(outside, tmp_path, [f"f{n}" for n in range(20)]), strict=True
    )
    with swapping(pairs):
        for n in range(int(seconds * 20)):
            (src / "f1").chmod(0o600 + n % 64)
            for m in range(20):
                (src / f"f{m}").chmod(0o600 + (n + m) % 64)
            run_for(0.02, src, dst)
    assert snapshot(outside, untouched=True) == before
