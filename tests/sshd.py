"""An SSH server that tests start themselves, on loopback, with keys of its own. No file of the system is touched."""

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

import sypy
from servers import free_port

SFTP = "/usr/lib/openssh/sftp-server"
HOST = "testhost"


class Sshd:
    """`subsystem`: what answers to sftp. `url("/dir/")` is a location on it, `config` how to get there."""

    def __init__(self, place: Path, *, subsystem: str = SFTP, extra: Sequence[str] = ()) -> None:
        self.place = place
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.port = free_port()
        for name in ("host_key", "id"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", place / name], check=True)
        shutil.copy(place / "id.pub", place / "authorized_keys")
        key = " ".join((place / "host_key.pub").read_text().split()[:2])
        (place / "known_hosts").write_text(f"[127.0.0.1]:{self.port} {key}\n")
        (place / "sshd_config").write_text(
            "\n".join(
                [
                    "ListenAddress 127.0.0.1",
                    f"Port {self.port}",
                    f"HostKey {place}/host_key",
                    f"AuthorizedKeysFile {place}/authorized_keys",
                    f"PidFile {place}/pid",
                    "PasswordAuthentication no",
                    "UsePAM no",
                    "StrictModes no",
                    "PermitRootLogin prohibit-password",
                    "MaxStartups 200",
                    "MaxSessions 100",
                    "UseDNS no",
                    f"Subsystem sftp {subsystem}",
                    *extra,
                    "",
                ]
            )
        )
        (place / "ssh_config").write_text(
            f"Host {HOST}\n HostName 127.0.0.1\n Port {self.port}\n IdentityFile {place}/id\n IdentitiesOnly yes\n"
            f" UserKnownHostsFile {place}/known_hosts\n StrictHostKeyChecking yes\n"
        )
        self.process: subprocess.Popen | None = None
        self.start()

    def start(self) -> None:
        program = shutil.which("sshd") or "/usr/sbin/sshd"
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)
        with open(self.place / "log", "a") as log:
            command = [program, "-D", "-e", "-f", self.place / "sshd_config"]
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + 20
        while not (self.place / "pid").exists():
            assert self.process.poll() is None, (self.place / "log").read_text()
            assert time.monotonic() < deadline, "sshd does not listen"
            time.sleep(0.02)

    def stop(self) -> None:
        """Ends the server and all its sessions."""
        if self.process is not None:
            for pid in self.sessions():
                _kill(pid)
            self.process.terminate()
            self.process.wait()
            (self.place / "pid").unlink(missing_ok=True)
            self.process = None

    def sessions(self) -> list[int]:
        """The processes of all sessions, the outermost first."""
        found, parents = [], [self.process.pid] if self.process else []
        while parents:
            parent = parents.pop(0)
            children = [int(pid) for pid in _read(f"/proc/{parent}/task/{parent}/children").split()]
            found += children
            parents += children
        return found

    def cut(self) -> None:
        """Cuts all connections, as a failing network would."""
        for pid in self.sessions():
            _kill(pid)

    @property
    def config(self) -> sypy.SshConfig:
        return sypy.SshConfig(config_file=self.place / "ssh_config")

    def url(self, path: object) -> str:
        return f"sftp://{HOST}{path}"


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def needs_sshd() -> None:
    if not (shutil.which("sshd") or os.access("/usr/sbin/sshd", os.X_OK)) or not shutil.which("ssh"):
        if os.environ.get("CI"):
            pytest.fail("OpenSSH's server or client is not installed")
        pytest.skip("OpenSSH's server or client is not installed")


@pytest.fixture(scope="session")
def sshd(tmp_path_factory):
    needs_sshd()
    server = Sshd(tmp_path_factory.mktemp("sshd"))
    yield server
    server.stop()


@pytest.fixture
def own_sshd(tmp_path_factory):
    """Starts servers for one test alone: `own_sshd(subsystem="…")`."""
    needs_sshd()
    started = []

    def own_sshd(**how) -> Sshd:
        started.append(Sshd(tmp_path_factory.mktemp("sshd"), **how))
        return started[-1]

    yield own_sshd
    for server in started:
        server.stop()
