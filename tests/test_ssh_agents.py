"""Which agent answers on a host: none, another version, one behind a chatty login; copied there once where it can be."""

import logging
import os
import shutil
import sys

import pytest

import running
import sypy
from agent_wire import GREETING, frame, num
from ssh_host import Host, host, own_host
from sshd import HOST
from trees import assert_same, build, keys

__all__ = ["host", "own_host"]


@pytest.fixture
def native_on_path(sy_binary, monkeypatch, tmp_path):
    """The program that is copied to hosts."""
    place = tmp_path / "here"
    place.mkdir()
    (place / "sy").symlink_to(sy_binary)
    monkeypatch.setenv("PATH", f"{place}:{os.environ['PATH']}")


def script(path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def speaks(host: Host, version: int) -> None:
    """Puts an agent of that version there."""
    (host.home / "greeting").write_bytes(GREETING + frame("Hello", 0, num(version)))
    script(host.bin / "sy", f"cat {host.home}/greeting; cat > /dev/null")


def copies(host: Host) -> list:
    folder = host.home / ".cache/sypy/agent"
    return sorted(folder.iterdir()) if folder.exists() else []


@pytest.mark.parametrize("version", [0, 2, 99])
def test_another_version_is_said_so(own_host, src, dst, version):
    host = own_host()
    speaks(host, version)
    build(src, {"a": "a"})
    for sides in [(f"{src}/", host.url(f"{dst}/")), (host.url(f"{src}/"), f"{dst}/")]:
        with pytest.raises(sypy.UnsupportedError, match=f"version {version}"):
            sypy.sync(*sides, ssh=with_agent(host, f"{host.bin}/sy"))
    assert not dst.exists()


def with_agent(host: Host, agent: str) -> sypy.SshConfig:
    return host.config.replace(agent_path=agent)


def test_an_agent_of_another_version_gives_way_to_a_copy(own_host, native_on_path, src, dst):
    host = own_host()
    speaks(host, 99)
    build(src, {"a": "a"})
    sypy.sync(f"{src}/", host.url(f"{dst}/"), ssh=host.config).raise_for_errors()
    assert_same(src, dst)
    assert len(copies(host)) == 1


@pytest.mark.parametrize(
    "noise",
    ["echo Welcome; echo $'to\\nthe host'", "echo warning >&2", "head -c 50000 /dev/urandom", "printf '\\nsypy-agent'"],
)
def test_what_a_login_prints_is_passed_over(own_host, sy_binary, src, dst, noise):
    host = own_host(agent=sy_binary, before=noise)
    build(src, {"a": "a"})
    sypy.sync(f"{src}/", host.url(f"{dst}/"), ssh=host.config).raise_for_errors()
    assert_same(src, dst)


def test_a_login_that_never_stops_printing_is_given_up(own_host, src, dst):
    host = own_host(before="exec yes")
    build(src, {"a": "a"})
    with pytest.raises(sypy.SyncError, match=r"no (sy|agent) answered"):
        sypy.sync(f"{src}/", host.url(f"{dst}/"), ssh=with_agent(host, "sy"))


def test_a_host_without_an_agent_gets_one_once(own_host, native_on_path, sy_binary, src, dst):
    host = own_host()
    build(src, {"a": "a", "l": "l"})
    for direction in [
        (f"{src}/", host.url(f"{dst}/")),
        (host.url(f"{src}/"), f"{dst}-2/"),
        (f"{src}/", host.url(f"{dst}-3/")),
    ]:
        sypy.sync(*direction, ssh=host.config).raise_for_errors()
        (copy,) = copies(host)
        state = copy.stat()
        assert copy.read_bytes() == sy_binary.read_bytes() and state.st_mode & 0o777 == 0o700
        assert (state.st_ino, state.st_mtime_ns) == getattr(host, "seen", (state.st_ino, state.st_mtime_ns))
        host.seen = (state.st_ino, state.st_mtime_ns)
    for place in [dst, f"{dst}-2", f"{dst}-3"]:
        assert_same(src, place)


@pytest.mark.parametrize("spoiled", ["gone", "cut short", "other content"])
def test_a_copy_that_is_not_right_is_replaced(own_host, native_on_path, sy_binary, src, dst, spoiled):
    host = own_host()
    build(src, {"a": "a"})
    sypy.sync(f"{src}/", host.url(f"{dst}/"), ssh=host.config).raise_for_errors()
    (copy,) = copies(host)
    running.wait_until(lambda: not host.agents(), what="the end of the agent")
    content = copy.read_bytes()
    # A program that still ends can't be written to.
    copy.unlink()
    if spoiled == "cut short":
        copy.write_bytes(content[:1000])
        copy.chmod(0o700)
    elif spoiled == "other content":
        script(copy, "echo nothing of interest")
    build(src, {"b": "b"})
    sypy.sync(f"{src}/", host.url(f"{dst}/"), ssh=host.config).raise_for_errors()
    (copy,) = copies(host)
    assert copy.read_bytes() == sy_binary.read_bytes()
    assert keys(dst) == {"a", "b"}


def test_a_home_that_takes_nothing_leaves_sftp(own_host, native_on_path, src, dst, caplog):
    host = own_host()
    (host.home / ".cache").write_text("in the way")
    build(src, {"a": "a"})
    with caplog.at_level(logging.WARNING):
        sypy.sync(f"{src}/", host.url(f"{dst}/"), ssh=host.config).raise_for_errors()
    assert (dst / "a").read_text() == "a"


@pytest.mark.parametrize("direction", ["push", "pull"])
def test_another_kind_of_machine_is_reached_over_sftp_and_that_is_said(own_host, sy_binary, src, dst, direction):
    host = own_host()
    script(host.bin / "uname", "echo Plan9 pdp11")
    build(src, {"a": "a"})
    (program,), env = host.cli(sy_binary)
    sides = [f"{src}/", f"{HOST}:{dst}/"] if direction == "push" else [f"{HOST}:{src}/", f"{dst}/"]
    done = running.run([program, *sides], env=env)
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if "SFTP" in line]
    assert HOST in line and "Plan9 pdp11" in line and "whole seconds" in line
    assert (dst / "a").read_text() == "a" and copies(host) == []
    # What would be lost without being asked for is no reason to go on.
    done = running.run([program, "--trash", "--delete", *sides], env=env)
    assert (done.returncode != 0) == (direction == "push"), done.stderr


def test_a_machine_that_says_strange_things_is_not_believed(own_host, sy_binary, src, dst):
    host = own_host()
    script(host.bin / "uname", "printf 'Linux \\033[31mx86_64\\n'; yes")
    build(src, {"a": "a"})
    (program,), env = host.cli(sy_binary)
    done = running.run([program, f"{src}/", f"{HOST}:{dst}/"], env=env)
    assert done.returncode == 0 and "\x1b" not in done.stderr and (dst / "a").exists()


def test_python_is_an_agent_as_well(own_host, src, dst):
    host = own_host()
    script(host.bin / "python3", f'exec {sys.executable} "$@"')
    build(src, {"a": "a"})
    sypy.sync(f"{src}/", host.url(f"{dst}/"), ssh=host.config).raise_for_errors()
    assert_same(src, dst)
    assert copies(host) == []


def test_an_agent_path_is_the_only_place(own_host, sy_binary, native_on_path, src, dst):
    host = own_host()
    shutil.copy(sy_binary, host.home / "own-agent")
    build(src, {"a": "a"})
    sypy.sync(f"{src}/", host.url(f"{dst}/"), ssh=with_agent(host, "./own-agent")).raise_for_errors()
    assert_same(src, dst)
    with pytest.raises(sypy.UnsupportedError, match="no sy answered"):
        sypy.sync(f"{src}/", host.url(f"{dst}/"), ssh=with_agent(host, "./missing"))
    assert copies(host) == []


def test_agents_end_with_their_runs(host, src, dst):
    build(src, {"a": "a"})
    sypy.sync(f"{src}/", host.url(f"{dst}/"), ssh=host.config)
    running.wait_until(lambda: not host.agents(), what="the end of the agent")
