"""What Python adds: ``sypy.sync()`` against the native command on the same job, in CPU seconds.

Both do the same job in turns, pair by pair. The call is measured by the CPU time that this process
used around it, with all its threads; the command by what the kernel reports for it when it ends.
The two differ by more than Python: the command also starts and ends a process. So ``sy --version``,
which does only that, is measured in each pair, and the ratio is given with and without it.
"""

from __future__ import annotations

import importlib
import os
import resource
import time
from collections.abc import Callable
from statistics import median
from types import ModuleType

from check import REMARKS, faults
from datasets import dataset
from measure import flush, read_all, time_command
from places import BenchError, empty, tool_env, work
from results import Record, Results
from tools import Job, Tool

AFTERMATH = 0.05  # s to wait after a call, so that CPU time of threads that wind down counts too


def call_cpu(call: Callable[[], object]) -> tuple[float, float]:
    """CPU seconds and wall seconds of a call in this process."""

    def now() -> float:
        used = resource.getrusage(resource.RUSAGE_SELF)
        return used.ru_utime + used.ru_stime

    before, began = now(), time.perf_counter()
    call()
    wall = time.perf_counter() - began
    time.sleep(AFTERMATH)
    return now() - before, wall


def load() -> ModuleType:
    """Our package, from the Python that runs this."""
    try:
        return importlib.import_module("sypy")
    except ImportError as error:
        raise BenchError(f"this Python can't import sypy: {error}") from None


def measure_overhead(name: str, pairs: int, tool: Tool, results: Results) -> None:
    """Measure no-op and copy of a data set, `pairs` times each after one that is not counted."""
    sypy, data = load(), dataset(name)
    dest, home = work() / "run" / "overhead", empty(work() / "home")
    env = tool_env(home)
    os.environ.update({key: env[key] for key in env if key == "HOME" or key.startswith("XDG_")})
    job = Job("copy", data.root, empty(dest))
    argv = tool.command(job) or []  # the same for a copy and for nothing to do
    time_command(argv, env, work())
    for step in ("noop", "copy"):
        ratios = []
        for pair in range(-1, pairs):
            got: Record = {}
            for side in ("call", "native") if pair % 2 else ("native", "call"):
                if step == "copy":
                    empty(dest)
                read_all(data.root)
                flush(dest)
                if side == "call":
                    got[side], got[side + "_wall"] = call_cpu(lambda: sypy.sync(*job.slashed))
                else:
                    got[side], got[side + "_wall"] = time_command(argv, env, work())
                bad = faults(data.root, dest, ()) if pair < 0 else {}
                if bad.keys() - REMARKS:
                    raise BenchError(f"{side} {step} left a wrong result: {bad}")
            got["start"], _ = time_command([argv[0], "--version"], env, work())
            if pair >= 0:
                got = {key: round(value, 6) for key, value in got.items()}
                results.write(data=name, step=step, pair=pair, **got)
                ratios.append(got["call"] / got["native"])
        print(f"{name} {step}: {pairs} pairs, call / command = {median(ratios):.3f}", flush=True)
    empty(dest).rmdir()


def section(records: list[Record]) -> list[str]:
    """The Markdown lines of this measurement."""
    lines = [
        "| data | step | pairs | `sypy.sync()` ms | `sy` ms | `sy --version` ms | ratio "
        "| ratio without process start |",
        "|" + " --- |" * 8,
    ]
    for key in sorted({(r["data"], r["step"]) for r in records}):
        rows = [r for r in records if (r["data"], r["step"]) == key]
        call, native, start = (1000 * median(r[side] for r in rows) for side in ("call", "native", "start"))
        ratio = median(r["call"] / r["native"] for r in rows)
        bare = median(r["call"] / (r["native"] - r["start"]) for r in rows)
        lines.append(
            f"| {key[0]} | {key[1]} | {len(rows)} | {call:.1f} | {native:.1f} | {start:.1f} "
            f"| {ratio:.3f} | {bare:.3f} |"
        )
    return lines
