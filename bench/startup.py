"""The time of ``import sypy``: fresh interpreters that do it, in turns with ones that do not."""

from __future__ import annotations

import sys
from statistics import median

from measure import time_command
from places import empty, tool_env, work
from results import Record, Results

PROGRAMS = {"pass": "pass", "import": "import sypy"}


def measure_import(pairs: int, results: Results) -> None:
    """Time `pairs` interpreters of each kind, after one of each that is not counted."""
    env = tool_env(empty(work() / "home"))
    differences = []
    for pair in range(-1, pairs):
        wall: dict[str, float] = {}
        for name in sorted(PROGRAMS, reverse=bool(pair % 2)):
            _, seconds = time_command([sys.executable, "-c", PROGRAMS[name]], env, work())
            wall[name] = round(seconds * 1000, 3)
        if pair >= 0:
            results.write(pair=pair, import_ms=wall["import"], pass_ms=wall["pass"])
            differences.append(wall["import"] - wall["pass"])
    print(f"import sypy: {median(differences):.1f} ms more than an interpreter that imports nothing")


def section(records: list[Record]) -> list[str]:
    """The Markdown lines of this measurement."""
    lines = ["| interpreter | runs | min ms | median ms | max ms |", "|" + " --- |" * 5]
    columns = {
        "`python -c pass`": [r["pass_ms"] for r in records],
        "`python -c 'import sypy'`": [r["import_ms"] for r in records],
        "difference of a pair": [r["import_ms"] - r["pass_ms"] for r in records],
    }
    for name, ms in columns.items():
        lines.append(f"| {name} | {len(ms)} | {min(ms):.1f} | {median(ms):.1f} | {max(ms):.1f} |")
    return lines
