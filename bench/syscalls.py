"""System calls per file, counted by strace: what a tool costs whatever the machine's speed."""

from __future__ import annotations

import shutil
from pathlib import Path

from check import faults
from datasets import dataset
from measure import run
from places import BenchError, empty, tool_env, work
from results import Record, Results
from tools import Job, Tool


def measure_syscalls(name: str, tools: list[Tool], results: Results) -> None:
    """Copy, then a run with nothing to do, under ``strace -f -c``; one of each is enough."""
    strace = shutil.which("strace")
    if not strace:
        raise BenchError("strace is not installed")
    data, summary = dataset(name), work() / "strace.txt"
    for tool in tools:
        dest, home = empty(work() / "run" / tool.name), empty(work() / "home")
        for step in ("copy", "noop"):
            argv = tool.command(Job(step, data.root, dest))
            if argv is None:
                continue
            counted = [strace, "-f", "-c", "-o", str(summary), *argv]
            used = run(counted, tool_env(home), work() / f"{tool.name}.log")
            bad = faults(data.root, dest, ())
            if used.code or bad:
                raise BenchError(f"{tool.name} {step} failed under strace: {used.code} {bad}")
            calls = parse(summary)
            per_file = round(sum(calls.values()) / data.shape.files, 2)
            results.write(
                data=name, step=step, tool=tool.name, files=data.shape.files,
                per_file=per_file, calls=calls,
            )  # fmt: skip
            most = ", ".join(f"{call} {n / data.shape.files:.1f}" for call, n in top(calls))
            print(f"{name} {step} {tool.name}: {per_file:.1f} calls per file: {most}", flush=True)
        shutil.rmtree(dest)


def parse(summary: Path) -> dict[str, int]:
    """Calls by name. A row: % time, seconds, usecs/call, calls, errors (may be blank), name."""
    calls = {}
    for line in summary.read_text().splitlines():
        fields = line.split()
        if len(fields) in (5, 6) and fields[3].isdigit() and fields[-1] != "total":
            calls[fields[-1]] = int(fields[3])
    return calls


def top(calls: dict[str, int], count: int = 6) -> list[tuple[str, int]]:
    return sorted(calls.items(), key=lambda item: -item[1])[:count]


def section(records: list[Record]) -> list[str]:
    """The Markdown lines of this measurement."""
    lines = ["| data | step | tool | calls per file | most of them |", "|" + " --- |" * 5]
    for r in sorted(records, key=lambda r: (r["data"], r["step"], r["per_file"])):
        most = ", ".join(f"{call} {n / r['files']:.1f}" for call, n in top(r["calls"], 5))
        lines.append(f"| {r['data']} | {r['step']} | {r['tool']} | {r['per_file']:.1f} | {most} |")
    return lines
