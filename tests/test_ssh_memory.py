"""Neither side's memory grows with the size of a file, new or changed, nor with how much faster the disk is than the wire."""

import os
import random
import re
import sys
import threading
from pathlib import Path

import pytest

import running
from ssh_host import host, own_host, wire_to
from sshd import HOST
from trees import WHEN, build, set_mtime

__all__ = ["host", "own_host", "wire_to"]
MIB = 1 << 20
MOST = 80  # MiB


def fill(path: Path, mib: int, seed: int) -> None:
    dice = random.Random(seed)
    with open(path, "wb") as file:
        for _ in range(mib):
            file.write(dice.randbytes(MIB))


def edit(path: Path, mib: int) -> None:
    """Some blocks are others, and all behind the middle moves on by a little."""
    with open(path, "r+b") as file:
        for at in range(0, mib // 2, 7):
            file.seek(at * MIB + 12_345)
            file.write(os.urandom(5000))
    rest = path.with_suffix(".rest")
    with open(path, "rb") as file, open(rest, "wb") as out:
        for number in range(mib):
            out.write(file.read(MIB))
            if number == mib // 2:
                out.write(b"inserted")
    rest.rename(path)


class Peaks:
    """The most memory, in MiB, that a run takes and its agents take."""

    def __init__(self, host) -> None:
        self.host, self.client, self.agent = host, 0, 0
        self.done = threading.Event()

    def watch(self, pid: int) -> None:
        while not self.done.wait(0.02):
            self.client = max(self.client, peak(pid))
            for agent in self.host.agents():
                self.agent = max(self.agent, peak(agent))


def peak(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    found = re.search(r"VmHWM:\s+(\d+)", status)
    return int(found[1]) >> 10 if found else 0


def measured(host, sy_binary, source, dest, *options) -> Peaks:
    (program,), env = host.cli(sy_binary)
    peaks = Peaks(host)
    with running.started([program, source, dest, *options], env=env) as process:
        watcher = threading.Thread(target=peaks.watch, args=[process.pid])
        watcher.start()
        code = process.wait(timeout=600)
        peaks.done.set()
        watcher.join()
        assert code == 0, process.stderr.read()
    assert peaks.client and peaks.agent
    return peaks


@pytest.mark.parametrize(
    "mib", [160, pytest.param(1024, marks=pytest.mark.slow), pytest.param(4096, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("direction", ["push", "pull"])
def test_a_large_file_takes_little_memory_on_both_sides(host, sy_binary, tmp_path, direction, mib):
    src, dst = tmp_path / "src", tmp_path / "dst"
    src.mkdir()
    fill(src / "big", mib, 1)
    sides = (f"{src}/", f"{HOST}:{dst}/") if direction == "push" else (f"{HOST}:{src}/", f"{dst}/")
    new = measured(host, sy_binary, *sides)
    assert max(new.client, new.agent) < MOST, f"new: {new.client} MiB here, {new.agent} MiB there"
    edit(src / "big", mib)
    set_mtime(src / "big", WHEN)
    changed = measured(host, sy_binary, *sides)
    assert max(changed.client, changed.agent) < MOST, f"changed: {changed.client} MiB here, {changed.agent} MiB there"
    print(f"{direction} {mib} MiB: new {new.client}/{new.agent} MiB, changed {changed.client}/{changed.agent} MiB")
    running.run(["cmp", src / "big", dst / "big"]).check_returncode()


@pytest.mark.parametrize("direction", ["push", "pull"])
def test_many_files_take_little_memory_on_both_sides(host, sy_binary, tmp_path, direction):
    src, dst = tmp_path / "src", tmp_path / "dst"
    build(src, {f"d{n % 200:03}/{'name' * 10}{n}": b"%d" % n for n in range(20_000)})
    sides = (f"{src}/", f"{HOST}:{dst}/") if direction == "push" else (f"{HOST}:{src}/", f"{dst}/")
    for _ in range(2):
        peaks = measured(host, sy_binary, *sides)
        assert max(peaks.client, peaks.agent) < MOST, f"{peaks.client} MiB here, {peaks.agent} MiB there"


@pytest.mark.parametrize("direction", ["push", "pull"])
def test_a_slow_wire_keeps_nothing_in_memory(host, sy_binary, wire_to, tmp_path, direction):
    src, dst = tmp_path / "src", tmp_path / "dst"
    src.mkdir()
    fill(src / "big", 96, 1)
    wire = wire_to(host)
    wire.rate = 24e6
    config = host.through(wire.port).config_file
    code = (
        "import sys, sypy\n"
        f"sypy.sync(sys.argv[1], sys.argv[2], ssh=sypy.SshConfig(config_file={os.fspath(config)!r})).raise_for_errors()\n"
        f"print({running.PEAK})"
    )
    sides = (f"{src}/", f"{HOST}:{dst}/") if direction == "push" else (f"{HOST}:{src}/", f"{dst}/")
    peaks = Peaks(host)
    with running.started([sys.executable, "-c", code, *sides]) as process:
        watcher = threading.Thread(target=peaks.watch, args=[process.pid])
        watcher.start()
        assert process.wait(timeout=120) == 0, process.stderr.read()
        peaks.done.set()
        watcher.join()
        here = int(process.stdout.read())
    # An interpreter takes some 30 MiB itself.
    assert here < MOST + 30 and peaks.agent < MOST, f"{here} MiB here, {peaks.agent} MiB there"
