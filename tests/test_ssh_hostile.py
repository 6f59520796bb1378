"""Agents that lie: nothing is written outside the destination, nothing is believed, and every run ends."""

import os
import sys
import time
from pathlib import Path

import pytest

import running
import sypy
from ssh_host import own_host
from trees import File, build, keys, leftovers

__all__ = ["own_host"]
HERE = Path(__file__).resolve().parent
NAMES = ["dotdot", "dot", "up", "absolute", "slash", "nul", "long", "walk-out"]
TREES = ["order", "twice", "link-and-directory", "link-then-below", "huge"]
CONTENTS = ["small-longer", "small-shorter", "big-longer", "big-shorter", "hole-longer", "far-start", "wild-copy"]
FRAMES = ["garbage", "too-large", "unknown-kind", "bomb", "wrong-id", "silent-end", "version"]
FLOODS = ["endless-listing", "endless-directories", "content-flood", "data-flood", "signature-flood", "pings"]


@pytest.fixture
def liar(own_host):
    """A host whose agent lies: `liar("up")`."""

    def liar(how: str):
        host = own_host()
        program = host.bin / "liar"
        program.write_text(f'#!/bin/sh\nexec {sys.executable} {HERE}/hostile_agent.py {how} "$@"\n')
        program.chmod(0o755)
        host.lies = host.config.replace(agent_path=f"{program}")
        return host

    return liar


def pull(host, dst, source="/srv/", **options):
    """What went wrong, in one text."""
    try:
        stats = sypy.sync(host.url(source), dst, ssh=host.lies, retry=0, **options)
    except sypy.PartialSyncError as partial:
        stats = partial.stats
    except sypy.SyncError as error:
        return str(error)
    return "\n".join(str(error) for error in stats.errors)


def outside(tmp_path) -> set:
    return {key for key in keys(tmp_path) if not key.startswith("dst/")} - {"dst"}


@pytest.mark.parametrize("how", [*NAMES, *TREES, *CONTENTS, *FRAMES])
def test_nothing_is_written_outside_and_the_run_fails(liar, tmp_path, how):
    build(tmp_path / "outside", {"kept": "kept"})
    before = outside(tmp_path)
    host = liar(how)
    said = pull(host, f"{tmp_path}/dst/", timeout=40)
    assert outside(tmp_path) == before and not os.path.lexists("/tmp/sypy-escaped")
    if how != "link-then-below":
        assert said, how
    assert "\x1b" not in said and "panicked" not in said
    if (tmp_path / "dst").exists():
        there = keys(tmp_path / "dst") - set(leftovers(tmp_path / "dst"))
        assert there <= {"big", "d", "d/f", "small"}
        lied_about = how.partition("-")[0] if how.startswith(("big", "small")) else "big"
        assert lied_about not in there or how not in CONTENTS
        if (tmp_path / "dst/d").is_symlink():
            assert keys(tmp_path / "outside") == {"kept"}


def test_what_is_true_is_believed(liar, tmp_path):
    said = pull(liar("honest"), f"{tmp_path}/dst/", timeout=40)
    # It does not know how to hash.
    assert said == "cannot read 'testhost:/srv/big': what arrived is not what was sent"
    assert keys(tmp_path / "dst") == {"d", "d/f", "small"}


@pytest.mark.parametrize("how", ["one-up", "one-absolute", "one-nul", "one-other"])
@pytest.mark.parametrize("dest", ["dst/", "dst/renamed"])
def test_a_single_file_has_the_name_that_was_asked_for(liar, tmp_path, how, dest):
    (tmp_path / "dst").mkdir()
    host = liar(how)
    said = pull(host, f"{tmp_path}/{dest}", "/srv/file", timeout=40)
    assert outside(tmp_path) == set() and not os.path.lexists("/tmp/sypy-escaped")
    assert said and keys(tmp_path / "dst") == set()


def test_nothing_is_deleted_because_of_a_lie(liar, tmp_path):
    for number, how in enumerate(["up", "order", "silent-end", "garbage"]):
        dst = tmp_path / f"dst{number}"
        build(dst, {"mine": "mine", "d/mine": "mine"})
        pull(liar(how), f"{dst}/", delete=True, force_delete=True, timeout=40)
        assert {"d/mine"} <= keys(dst), how


@pytest.mark.parametrize("how", FLOODS)
def test_a_flood_drowns_nobody(liar, tmp_path, how, sy_binary):
    if how == "signature-flood":
        build(tmp_path / "dst", {"big": File(b"y" * 300_000, mtime_ns=5)})
    host = liar(how)
    code = (
        "import resource, sypy\n"
        f"resource.setrlimit(resource.RLIMIT_AS, ({1200 << 20}, {1200 << 20}))\n"
        "try:\n"
        f"    sypy.sync('ssh://testhost/srv/', {str(tmp_path / 'dst')!r} + '/', retry=0, timeout=6,\n"
        f"        ssh=sypy.SshConfig(config_file={os.fspath(host.lies.config_file)!r}, agent_path={host.lies.agent_path!r}))\n"
        "    print('done')\n"
        "except sypy.SyncError as error:\n"
        "    print(error)\n"
        f"print({running.PEAK})\n"
    )
    start = time.monotonic()
    done = running.run([sys.executable, "-c", code], timeout=60)
    assert done.returncode == 0, done.stderr[-2000:]
    said, peak = done.stdout.strip().rsplit("\n", 1)
    assert said != "done"
    assert int(peak) < 200, f"{peak} MiB"
    assert time.monotonic() - start < 50


def test_a_push_to_a_liar_tells_what_it_said_in_printable_words(liar, tmp_path):
    build(tmp_path / "src", {"a": "a"})
    host = liar("dest")
    with pytest.raises(sypy.SyncError) as caught:
        sypy.sync(f"{tmp_path}/src/", host.url("/srv/"), ssh=host.lies, retry=0)
    assert "\x1b" not in str(caught.value) and "\n" not in str(caught.value)
