"""The results file: one JSON object a line, kept so that a new measurement replaces the old one."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from measure import Usage
from places import SUITE, filesystem, work
from tools import Tool

Record = dict[str, Any]
DEFAULT = SUITE / "results" / "results.jsonl"


class Results:
    """Appends records of one session; at the end drops those that it supersedes."""

    def __init__(self, path: Path, kind: str, tools: list[Tool]) -> None:
        self.path, self.kind = path, kind
        self.session = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        path.parent.mkdir(parents=True, exist_ok=True)
        self.write(kind="machine", measured=kind, **machine(tools))

    def write(self, **fields: Any) -> None:
        line = json.dumps({"kind": self.kind, "session": self.session} | fields)
        with open(self.path, "a", encoding="utf-8") as f:
            f.write(line + "\n")

    def tidy(self) -> None:
        part = self.path.with_name(self.path.name + ".part")
        lines = [json.dumps(record) + "\n" for record in latest(read(self.path))]
        part.write_text("".join(lines), encoding="utf-8")
        part.replace(self.path)


def usage_fields(used: Usage) -> Record:
    """A measurement as JSON; s and bytes."""
    return {
        "wall": round(used.wall, 5),
        "user": round(used.user, 5),
        "sys": round(used.system, 5),
        "rss": used.rss,
        "pss": used.pss,
        "flush": round(used.flush, 4),
        "others": round(used.others, 3),
        "code": used.code,
    }


def read(path: Path) -> list[Record]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in text.splitlines() if line.strip()]


def group(record: Record) -> tuple[str, ...]:
    """What a record measures: a later session with the same replaces an earlier one."""
    if record["kind"] == "machine":
        return ("machine", record["measured"], record["session"])
    return (record["kind"], *(record.get(key, "") for key in ("data", "cache", "step")))


def latest(records: list[Record]) -> list[Record]:
    """The records of the last session of each group, and the machines of those sessions."""
    last = {group(r): r["session"] for r in records}
    kept = [r for r in records if r["session"] == last[group(r)]]
    used = {(r["kind"], r["session"]) for r in kept}
    return [r for r in kept if "measured" not in r or (r["measured"], r["session"]) in used]


def machine(tools: list[Tool]) -> Record:
    """Facts that figures depend on; nothing that names the machine or its folders."""
    return {
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": f"{platform.system()} {platform.release()}",
        "filesystem": filesystem(work()),
        "python": sys.version.split()[0],
        "commit": commit(),
        "tools": {tool.name: tool.version for tool in tools},
    }


def cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.machine()


def commit() -> str:
    """The commit that the suite lies in, marked if there are changes; empty outside git."""
    argv = ["git", "-C", str(SUITE), "describe", "--always", "--dirty", "--match=nothing"]
    try:
        return subprocess.run(argv, capture_output=True, text=True).stdout.strip()
    except OSError:
        return ""
