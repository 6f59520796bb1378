"""Trees to and from an SSH host beside other tools, all through one sshd on this machine, near by or as if far away."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from check import REMARKS, faults
from cloud import free_port, wait_for
from datasets import EDITED_NS, Dataset, dataset
from measure import read_all, run, wait_quiet
from places import HOME, BenchError, empty, tool_env, work
from results import Results, usage_fields
from side_by_side import tail
from tools import OURS, SY_PYTHON_VENV, Tool, find_sy, first_line, is_ours, native, on_path

HOST = "benchhost"
PLACE = HOME / "sshd"
STEPS = {
    "copy": "destination is empty",
    "noop": "nothing changed",
    "chg": "1 % of the files changed (of a big file: 1 % of its 64 KiB blocks)",
    "ins": "1,000 bytes inserted in the middle of a big file",
}


@dataclass(frozen=True)
class Job:
    """One timed step from the contents of `src` into the folder `dst`, one of which is seen through the host."""

    step: str
    push: bool
    src: Path
    dst: Path

    def ends(self, remote: str = HOST + ":{}", slash: str = "/") -> list[str]:
        """Both places; `remote`: how a tool writes one on the host."""
        ends = [f"{self.src}{slash}", f"{self.dst}{slash}"]
        ends[self.push] = remote.format(ends[self.push])
        return ends


Command = Callable[[Job], "list[str] | None"]


def rclone(path: str) -> Command:
    def command(job: Job) -> list[str]:
        return [path, "copy", f"--sftp-ssh=ssh {HOST}", "--sftp-shell-type=unix", *job.ends(":sftp:{}", "")]

    return command


def scp(path: str) -> Command:
    def command(job: Job) -> list[str] | None:
        source, dest = job.ends(slash="")
        return [path, "-q", "-r", "-p", f"{source}/.", f"{dest}/"] if job.step == "copy" else None

    return command


def commands(given: str | None) -> dict[str, tuple[str, Command]]:
    """Every tool that is here: version and command."""
    found: dict[str, tuple[str, Command]] = {}

    def add(name: str, path: str | None, command: Callable[[str], Command], flag: str = "--version") -> None:
        if path and (version := first_line(path, flag)):
            found[name] = (version, command(path))

    ours = find_sy(given)
    add("sy", ours, lambda path: lambda job: [path, "-q", *job.ends()])
    call = "import sys, sypy; sys.exit(not sypy.sync(*sys.argv[1:]).success)"
    version = first_line(sys.executable, "-c", "import sypy; sypy.sync; print(sypy.__version__)")
    if version:
        found["sypy"] = (f"sypy {version}", lambda job: [sys.executable, "-c", call, *job.ends()])
    add("rsync", next(iter(on_path("rsync")), None), lambda path: lambda job: [path, "-a", *job.ends()])
    add("rclone", next(iter(on_path("rclone")), None), rclone, "version")
    if path := next(iter(on_path("scp")), None):
        said = subprocess.run(["ssh", "-V"], capture_output=True, text=True, check=False).stderr
        found["scp"] = (said.split(",")[0], scp(path))
    crate = (p for p in on_path("sy") if p != ours and native(p) and not is_ours(p))
    add("sy-crate", next(crate, None), lambda path: lambda job: [path, "-q", "-a", *job.ends(f"root@{HOST}:{{}}")])
    python = SY_PYTHON_VENV / "bin/python"
    if version := first_line(str(python), "-c", "import sypy; print(sypy.__version__)"):
        found["sy-python"] = (
            f"sy-python {version}",
            lambda job: [str(python), "-c", call, *job.ends(f"root@{HOST}:{{}}")],
        )
    return found


class Server:
    """An sshd of our own. `wire`: a link that all connections go through."""

    def __init__(self, agent: str | None, round_trip: float, mbit: float) -> None:
        self.children: list[subprocess.Popen] = []
        self.counts: Path | None = None
        empty(PLACE).chmod(0o700)
        for name in ("host_key", "id"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", PLACE / name], check=True)
        shutil.copy(PLACE / "id.pub", PLACE / "authorized_keys")
        (PLACE / "bin").mkdir()
        if agent:
            (PLACE / "bin/sy").symlink_to(agent)
        port = free_port()
        # SHLVL keeps bash from reading the user's start files, which are not what is measured.
        variables = f"PATH={PLACE}/bin:{os.environ['PATH']} SHLVL=2"
        (PLACE / "sshd_config").write_text(
            f"ListenAddress 127.0.0.1\nPort {port}\nHostKey {PLACE}/host_key\n"
            f"AuthorizedKeysFile {PLACE}/authorized_keys\n"
            f"PidFile none\nPasswordAuthentication no\nUsePAM no\nStrictModes no\nPermitRootLogin prohibit-password\n"
            f"MaxStartups 200\nUseDNS no\nSubsystem sftp internal-sftp\nSetEnv {variables}\n"
        )
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)
        program = shutil.which("sshd") or "/usr/sbin/sshd"
        with open(PLACE / "log", "w") as log:
            self.children.append(subprocess.Popen([program, "-D", "-e", "-f", PLACE / "sshd_config"], stderr=log))
        wait_for(port)
        if round_trip or mbit:
            behind, port, self.counts = port, free_port(), PLACE / "counts"
            self.counts.write_text("0 0")
            link = [
                sys.executable,
                str(Path(__file__).with_name("wan.py")),
                str(port),
                str(behind),
                str(round_trip),
                str(mbit),
            ]
            self.children.append(subprocess.Popen([*link, str(self.counts)]))
            time.sleep(0.5)
            wait_for(port)
        key = " ".join((PLACE / "host_key.pub").read_text().split()[:2])
        (PLACE / "known_hosts").write_text(f"[127.0.0.1]:{port} {key}\n")
        self.config = (
            f"Host {HOST}\n HostName 127.0.0.1\n Port {port}\n User {os.environ.get('USER', 'root')}\n"
            f" IdentityFile {PLACE}/id\n IdentitiesOnly yes\n UserKnownHostsFile {PLACE}/known_hosts\n"
            " StrictHostKeyChecking yes\n LogLevel ERROR\n"
        )
        (PLACE / "config").write_text(self.config)
        # Most tools start `ssh`, which looks for its settings in the user's real home.
        ssh = shutil.which("ssh") or "/usr/bin/ssh"
        for name in ("ssh", "scp"):
            real = ssh if name == "ssh" else shutil.which("scp") or "/usr/bin/scp"
            (PLACE / "bin" / name).write_text(f'#!/bin/sh\nexec {real} -F {PLACE}/config "$@"\n')
            (PLACE / "bin" / name).chmod(0o755)

    def env(self, home: Path) -> dict[str, str]:
        # Others read this file themselves.
        (home / ".ssh").mkdir(mode=0o700)
        (home / ".ssh/config").write_text(self.config)
        env = tool_env(home)
        return env | {"PATH": f"{PLACE}/bin:{env['PATH']}"}

    def passed(self) -> int:
        """Bytes that went through the link so far, both ways."""
        if self.counts is None:
            return 0
        time.sleep(0.2)
        return sum(map(int, self.counts.read_text().split()))

    def end(self) -> None:
        for child in reversed(self.children):
            child.terminate()
            child.wait()


@contextlib.contextmanager
def inserted(source: Dataset) -> Iterator[set[str]]:
    """1,000 bytes more in the middle of the big file."""
    path, aside = source.root / "big.bin", source.root.with_name(f"{source.root.name}.aside")
    half = path.stat().st_size // 2
    os.rename(path, aside)
    try:
        with open(aside, "rb") as old, open(path, "wb") as new:
            for piece in iter(lambda: old.read(min(1 << 20, half - old.tell()) if old.tell() < half else 1 << 20), b""):
                new.write(piece)
                if old.tell() == half:
                    new.write(b"inserted " * 111 + b".")
        os.utime(path, ns=(EDITED_NS + 1, EDITED_NS + 1))
        yield {"big.bin"}
    finally:
        os.replace(aside, path)


def measure_ssh(
    data: list[str], rounds: int, round_trip: float, mbit: float, names: list[str] | None, given: str | None, out: Path
) -> bool:
    """All tools in turns, there and back; true if every result of ours was right."""
    here = commands(given)
    if missing := [name for name in names or [] if name not in here]:
        raise BenchError(f"no tool {missing[0]}; there are {', '.join(here)}")
    tools = {name: here[name] for name in names or here}
    results = Results(out, "ssh", [Tool(name, version, lambda _: None) for name, (version, _) in tools.items()])
    right = True
    server = Server(find_sy(given), round_trip, mbit)
    try:
        for name in data:
            source = dataset(name)
            for push in (True, False):
                for number in range(rounds):
                    turn = number % len(tools)
                    for tool in [*tools][turn:] + [*tools][:turn]:
                        done = chain(source, push, tool, tools[tool][1], number, server, (round_trip, mbit), results)
                        right = right and (done or tool not in OURS)
    finally:
        server.end()
    results.tidy()
    return right


def chain(
    source: Dataset,
    push: bool,
    tool: str,
    command: Command,
    number: int,
    server: Server,
    link: tuple[float, float],
    results: Results,
) -> bool:
    dest, home, log = empty(work() / "run" / tool), empty(work() / "home"), work() / f"{tool}.log"
    env = server.env(home)
    way = ("push" if push else "pull") + (f" +{link[0] * 1000:.0f} ms, {link[1]:.0f} Mbit/s" if any(link) else "")
    right = True
    for step in STEPS:
        argv = command(Job(step, push, source.root, dest))
        if argv is None or (step == "ins" and not source.shape.big):
            continue
        with contextlib.ExitStack() as until_end:
            changed: set[str] = set()
            if step in ("chg", "ins"):
                changed = until_end.enter_context(source.edited() if step == "chg" else inserted(source))
            read_all(source.root)
            read_all(dest)
            wait_quiet(2)
            before = server.passed()
            used = run(argv, env, log)
            wire = server.passed() - before
            bad = faults(source.root, dest, changed)
        fine = used.code == 0 and bad.keys() <= REMARKS
        right = right and fine
        results.write(
            data=source.name,
            cache=way,
            step=step,
            tool=tool,
            round=number,
            problems=bad,
            wire=wire,
            **usage_fields(used),
        )
        words = ", ".join(f"{n} {kind}" for kind, n in bad.items()) or "right"
        if used.code:
            words += f"; exit code {used.code}: {tail(log)}"
        print(
            f"{source.name} {way:4} {step:5} {tool:9} round {number}: {used.wall:7.3f} s, CPU {used.cpu:6.3f} s, "
            f"peak {used.rss / 1e6:6.1f} MB" + (f", wire {wire / 1e6:8.2f} MB" if wire else "") + f"; {words}",
            flush=True,
        )
        if step == "copy" and not fine:
            break
    shutil.rmtree(dest)
    return right
