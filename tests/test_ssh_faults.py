"""Connections that break, agents that die, disks that are full: the destination stays whole, and the next run goes on."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress

import pytest

import running
import sypy
from ssh_host import Way, host, own_host, way, wire_to
from sshd import HOST
from trees import WHEN, File, assert_same, build, keys, leftovers, snapshot

__all__ = ["host", "own_host", "way", "wire_to"]
MIB = 1 << 20


def assert_every_file_is_whole(src, dst, before) -> None:
    new = snapshot(src)
    for key, node in (snapshot(dst) if dst.exists() else {}).items():
        if node["kind"] == "file" and not key.rpartition("/")[2].startswith(".sypy-"):
            assert node["content"] in [tree[key].get("content") for tree in (before, new) if key in tree], key


def soon(what, when, seconds=20.0) -> threading.Thread:
    """Does something on a thread, as soon as a condition holds."""

    def wait() -> None:
        running.wait_until(when, seconds, "the moment to act")
        what()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def filling(dst, size: int):
    """Has so much arrived of a file that is on its way?"""

    def filling() -> bool:
        parts = [dst / key for key in leftovers(dst)] if dst.exists() else []
        return any(_size(part) >= size for part in parts)

    return filling


def _size(path) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def test_a_large_file_goes_on_where_the_connection_was_cut(way, host, wire_to, src, dst):
    build(src, {"big": os.urandom(56 * MIB), "small": "s"})
    wire = wire_to(host)
    wire.cut_after(40 * MIB)
    stats = way(f"{src}/", f"{dst}/", ssh=host.through(wire.port), retry_delay=0.1)
    stats.raise_for_errors()
    assert wire.was_cut and wire.connections >= 2
    assert_same(src, dst)
    assert leftovers(dst) == []
    # What was in the pipes of the connection that broke goes again.
    assert wire.bytes < 80 * MIB


def test_the_next_run_goes_on_where_the_last_was_cut(way, host, wire_to, src, dst):
    build(src, {"big": os.urandom(56 * MIB), "small": "s"})
    wire = wire_to(host)
    wire.cut_after(40 * MIB, refuse=True)
    with pytest.raises(sypy.SyncError) as caught:
        way(f"{src}/", f"{dst}/", ssh=host.through(wire.port), retry=0)
    failed = caught.value.stats.errors if isinstance(caught.value, sypy.PartialSyncError) else [caught.value]
    assert any("big" in os.fspath(error.path or "") for error in failed), failed
    assert not (dst / "big").exists()
    wire.heal()
    before = wire.bytes
    way(f"{src}/", f"{dst}/", ssh=host.through(wire.port)).raise_for_errors()
    assert wire.bytes - before < 40 * MIB
    assert_same(src, dst)
    assert leftovers(dst) == []


def test_a_changed_file_stays_old_until_it_is_new(way, host, wire_to, src, dst):
    old = os.urandom(12 * MIB)
    build(src, {"big": os.urandom(12 * MIB)})
    build(dst, {"big": File(old, mtime_ns=WHEN - 10**9)})
    wire = wire_to(host)
    wire.cut_after(6 * MIB, refuse=True)
    stats = way.of(f"{src}/", f"{dst}/", ssh=host.through(wire.port), retry=0)
    assert stats.errors and (dst / "big").read_bytes() == old
    wire.heal()
    way(f"{src}/", f"{dst}/", ssh=host.through(wire.port)).raise_for_errors()
    assert_same(src, dst)
    assert leftovers(dst) == []


@pytest.mark.parametrize("round_", [*range(3), *(pytest.param(n, marks=pytest.mark.slow) for n in range(3, 40))])
def test_cut_again_and_again(way, host, wire_to, src, dst, round_):
    dice = random.Random(round_)
    build(
        src,
        {f"d{n % 9}/f{n}": dice.randbytes(dice.randrange(40_000)) for n in range(250)}
        | {"big": dice.randbytes(3 * MIB)},
    )
    build(
        dst,
        {f"d{n % 9}/f{n}": File(dice.randbytes(dice.randrange(40_000)), mtime_ns=WHEN - 1) for n in range(0, 250, 3)},
    )
    build(dst, {f"gone{n}/f": "x" for n in range(20)})
    before = snapshot(dst)
    wire = wire_to(host)
    for _ in range(3):
        wire.cut_after(dice.randrange(10_000, 6 * MIB), refuse=dice.random() < 0.5)
        with suppress(sypy.SyncError):
            way(f"{src}/", f"{dst}/", ssh=host.through(wire.port), delete=True, force_delete=True, retry_delay=0.05)
        wire.heal()
        assert_every_file_is_whole(src, dst, before)
    wire.cut_after(1 << 40)
    way(f"{src}/", f"{dst}/", delete=True, force_delete=True).raise_for_errors()
    assert_same(src, dst)
    assert leftovers(dst) == []


def test_an_agent_is_killed_and_another_goes_on(way, host, src, dst):
    build(src, {f"d{n % 9}/f{n}": os.urandom(20_000) for n in range(200)} | {"big": os.urandom(4 * MIB)})
    killer = soon(host.kill_agents, lambda: dst.exists() and any(key.startswith("d") for key in keys(dst)))
    stats = way(f"{src}/", f"{dst}/", bwlimit="6MB", retry_delay=0.1)
    killer.join()
    stats.raise_for_errors()
    # What the dead agent left is for the next run to clean up.
    assert way.changes(f"{src}/", f"{dst}/") == set()
    assert_same(src, dst)
    assert leftovers(dst) == []


def test_an_agent_that_always_dies_ends_the_run(own_host, sy_binary, src, dst):
    host = own_host(agent=sy_binary)
    (host.bin / "sy").unlink()
    (host.bin / "sy").write_text(f'#!/bin/sh\n(sleep 0.3; kill -9 $$) &\nexec {sy_binary} "$@"\n')
    (host.bin / "sy").chmod(0o755)
    build(src, {f"f{n}": os.urandom(3 * MIB) for n in range(3)})
    with pytest.raises(sypy.PartialSyncError) as caught:
        sypy.sync(f"{src}/", host.url(f"{dst}/"), ssh=host.config, bwlimit="1MB", retry=1, retry_delay=0.1)
    errors = [str(error) for error in caught.value.stats.errors]
    assert all("cut off" in error and f"{src}/f" in error for error in errors), errors


@pytest.mark.slow
def test_an_agent_that_falls_silent_is_given_up(host, src, dst):
    build(src, {f"f{n}": os.urandom(100_000) for n in range(60)})
    stopped = []

    def stop() -> None:
        stopped.append(host.agent())
        os.kill(stopped[0], signal.SIGSTOP)

    stopper = soon(stop, lambda: dst.exists() and keys(dst))
    try:
        stats = sypy.sync(f"{src}/", host.url(f"{dst}/"), ssh=host.config, bwlimit="2MB", retry_delay=0.1)
    finally:
        stopper.join()
        os.kill(stopped[0], signal.SIGCONT)
    stats.raise_for_errors()
    assert_same(src, dst)


def test_a_full_disk_is_told_as_such_and_the_rest_arrives(host, src, mount):
    place = mount("tmpfs", size="4m")
    build(src, {"a": b"x", "large": os.urandom(9 * MIB), "z": b"z"})
    run = Way(host, True)
    stats = run.of(f"{src}/", f"{place}/")
    assert [type(error) for error in stats.errors] == [sypy.NoSpaceError]
    assert os.fspath(stats.errors[0].path).endswith("/large") and HOST in str(stats.errors[0])
    assert (place / "a").read_bytes() == b"x" and (place / "z").read_bytes() == b"z" and not (place / "large").exists()
    (src / "large").write_bytes(b"fits now")
    run(f"{src}/", f"{place}/").raise_for_errors()
    assert_same(src, place)
    assert leftovers(place) == []


def test_a_read_only_file_system_is_told_as_such(host, src, mount):
    place = mount("tmpfs", size="1m")
    build(src, {"a": "a", "d/b": "b"})
    running.run(["mount", "-o", "remount,ro", place])
    stats = Way(host, True).of(f"{src}/", f"{place}/")
    assert stats.errors and all("ead-only" in str(error) for error in stats.errors), [
        str(error) for error in stats.errors
    ]
    told = sorted(str(error) for error in stats.errors)
    assert any("d': Read-only" in error for error in told) and any("d/b': its directory" in error for error in told), (
        told
    )
    assert (stats.files_created, stats.dirs_created) == (0, 0)


def test_what_changed_since_it_was_listed_stays(way, src, dst):
    build(src, {"a": os.urandom(1_200_000), "b": "b"})
    build(dst, {"a": "listed"})
    writer = soon(lambda: (dst / "a").write_text("somebody's"), lambda: leftovers(dst))
    stats = way.of(f"{src}/", f"{dst}/", bwlimit="400KB", retry=0)
    writer.join()
    assert [os.path.basename(os.fspath(error.path)) for error in stats.errors] == ["a"] and "changed" in str(
        stats.errors[0]
    )
    assert (dst / "a").read_text() == "somebody's" and (dst / "b").read_text() == "b"
    assert leftovers(dst) == []


def test_a_source_that_changes_is_read_again(way, src, dst):
    build(src, {"a": b"1" * 1_200_000})
    writer = soon(lambda: (src / "a").write_bytes(b"2" * 600_001), lambda: dst.exists() and leftovers(dst))
    stats = way(f"{src}/", f"{dst}/", bwlimit="400KB", retry_delay=0.1)
    writer.join()
    stats.raise_for_errors()
    assert (dst / "a").read_bytes() == b"2" * 600_001 and leftovers(dst) == []


def test_a_directory_that_becomes_a_link_is_not_followed(host, src, dst, tmp_path):
    build(tmp_path / "outside", {"kept": "kept"})
    build(src, {f"d/{n:03}": os.urandom(40_000) for n in range(80)})

    def swap() -> None:
        (dst / "d").rename(dst / "away")
        (dst / "d").symlink_to(tmp_path / "outside")

    swapper = soon(swap, (dst / "d/003").exists)
    Way(host, True).of(f"{src}/", f"{dst}/", bwlimit="1MB", retry=0, max_errors=0)
    swapper.join()
    assert keys(tmp_path / "outside") == {"kept"}


PHASES = ["connecting", "stopped agent", "transfer", "stalled wire"]


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("direction", ["push", "pull"])
def test_ctrl_c_ends_a_run_soon(host, wire_to, src, dst, phase, direction):
    build(src, {f"d{n % 5}/f{n}": os.urandom(50_000) for n in range(100)} | {"big": os.urandom(8 * MIB)})
    wire = wire_to(host)
    if phase == "connecting":
        wire.stall()
    sides = [f"{src}/", host.url(f"{dst}/")] if direction == "push" else [host.url(f"{src}/"), f"{dst}/"]
    config = host.through(wire.port).config_file
    code = (
        "import signal, sys, sypy\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"sypy.sync({sides[0]!r}, {sides[1]!r}, ssh=sypy.SshConfig(config_file={os.fspath(config)!r}), bwlimit='2MB')"
    )
    with running.started([sys.executable, "-c", code]) as process:
        if phase == "connecting":
            running.wait_until(lambda: wire.connections, what="a connection")
        else:
            running.wait_until(lambda: dst.exists() and len(keys(dst)) > 8, 30, "a transfer")
        stopped = host.agents() if phase == "stopped agent" else []
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        if phase == "stalled wire":
            wire.stall()
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        try:
            process.wait(timeout=8)
        except subprocess.TimeoutExpired:
            pytest.fail(f"still running after Ctrl-C while {phase}")
        finally:
            for pid in stopped:
                os.kill(pid, signal.SIGCONT)
        assert b"KeyboardInterrupt" in process.stderr.read()
    wire.heal()
    Way(host, direction == "push")(f"{src}/", f"{dst}/").raise_for_errors()
    assert_same(src, dst)
    assert leftovers(dst) == []
