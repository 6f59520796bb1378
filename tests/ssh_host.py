"""A host with an agent: a server of `sshd`, a home directory of its own there, and ways to look at what runs on it.

    def test_…(host, src, dst):
        sypy.sync(f"{src}/", host.url(f"{dst}/"), ssh=host.config)
"""

import os
import signal
from pathlib import Path

import pytest

import running
import sypy
from conftest import find_sy
from sshd import HOST, SFTP, Sshd, needs_sshd

# Whatever a login asks for is carried out by a plain shell in that home, so that nobody's own files there are seen.
WRAPPER = """#!/bin/sh
cd {home} || exit 1
export HOME={home} PATH={path}
unset XDG_STATE_HOME XDG_CACHE_HOME XDG_DATA_HOME XDG_CONFIG_HOME
{before}
case "$SSH_ORIGINAL_COMMAND" in
    "") exit 1 ;;
esac
exec /bin/sh -c "exec $SSH_ORIGINAL_COMMAND"
"""


class Host:
    """`home`: where logins begin. `bin`: what is on their PATH beside the system's programs."""

    def __init__(self, place: Path, *, before: str = "", agent: Path | None = None, subsystem: str = SFTP) -> None:
        self.home, self.bin = place / "home", place / "bin"
        self.home.mkdir(parents=True)
        self.bin.mkdir()
        if agent is not None:
            (self.bin / "sy").symlink_to(agent)
        wrapper = place / "login"
        wrapper.write_text(WRAPPER.format(home=self.home, path=f"{self.bin}:/usr/bin:/bin", before=before))
        wrapper.chmod(0o755)
        # SHLVL keeps the shell from reading the start files that it reads for remote commands.
        self.sshd = Sshd(place / "sshd", subsystem=subsystem, extra=[f"ForceCommand exec {wrapper}", "SetEnv SHLVL=2"])

    @property
    def config(self) -> sypy.SshConfig:
        return self.sshd.config

    def through(self, port: int) -> sypy.SshConfig:
        """By another port, where a proxy listens."""
        known = self.sshd.place / "known_hosts"
        key = " ".join((self.sshd.place / "host_key.pub").read_text().split()[:2])
        line = f"[127.0.0.1]:{port} {key}\n"
        if line not in known.read_text():
            known.write_text(known.read_text() + line)
        text = (self.sshd.place / "ssh_config").read_text().replace(f"Port {self.sshd.port}", f"Port {port}")
        other = self.sshd.place / f"ssh_config.{port}"
        other.write_text(text)
        return sypy.SshConfig(config_file=other)

    def url(self, path: object) -> str:
        return f"ssh://{HOST}{path}"

    def agents(self) -> list[int]:
        """The processes that are agents now."""
        return [pid for pid in self.sshd.sessions() if _words(pid)[1:] == ["agent"]]

    def agent(self) -> int:
        running.wait_until(self.agents, what="an agent")
        return self.agents()[0]

    def kill_agents(self) -> None:
        for pid in self.agents():
            os.kill(pid, signal.SIGKILL)

    def cli(self, program) -> tuple[list, dict]:
        """The native command line, and an environment in which its `ssh` finds this host."""
        bin = self.sshd.place / "bin"
        bin.mkdir(exist_ok=True)
        (bin / "ssh").write_text(f'#!/bin/sh\nexec /usr/bin/ssh -F {self.sshd.place}/ssh_config "$@"\n')
        (bin / "ssh").chmod(0o755)
        return [program], os.environ | {"PATH": f"{bin}:{os.environ['PATH']}"}

    def stop(self) -> None:
        self.sshd.stop()


def _words(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().split("\0")[:-1]
    except OSError:
        return []


@pytest.fixture(scope="session")
def host(tmp_path_factory):
    """With the native program on its PATH."""
    needs_sshd()
    agent = find_sy()
    if agent is None:
        pytest.skip("the native binary is not built; name one in SY_BIN")
    one = Host(tmp_path_factory.mktemp("host"), agent=agent)
    yield one
    one.stop()


@pytest.fixture
def own_host(tmp_path_factory):
    """Starts hosts for one test alone: `own_host(before="echo noise", agent=None)`."""
    needs_sshd()
    started = []

    def own_host(**how) -> Host:
        started.append(Host(tmp_path_factory.mktemp("host"), **how))
        return started[-1]

    yield own_host
    for one in started:
        one.stop()


@pytest.fixture(params=["push", "pull"])
def way(request, host):
    """Runs from one local path to another, one of them as seen through the host."""
    return Way(host, request.param == "push")


class Way:
    def __init__(self, host: Host, is_push: bool) -> None:
        self.host, self.is_push = host, is_push

    def sides(self, source, dest) -> tuple[str, str]:
        return (f"{source}", self.host.url(dest)) if self.is_push else (self.host.url(source), f"{dest}")

    def __call__(self, source, dest, **options):
        return sypy.sync(*self.sides(source, dest), ssh=options.pop("ssh", self.host.config), **options)

    def of(self, source, dest, **options):
        """The stats of a run in which some items may fail."""
        try:
            return self(source, dest, **options)
        except sypy.PartialSyncError as partial:
            return partial.stats

    def changes(self, source, dest, **options) -> set:
        from events import Recorder

        seen = Recorder()
        self(source, dest, on_event=seen, **options).raise_for_errors()
        return seen.changes
