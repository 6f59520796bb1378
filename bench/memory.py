"""Peak memory at 100,000 and at 1,000,000 files: does it grow with the tree?"""

from __future__ import annotations

import shutil

from check import totals
from datasets import SHAPES, dataset
from measure import run
from places import BenchError, empty, roomy, tool_env, work
from results import Record, Results
from tools import Job, Tool


def measure_memory(names: list[str], tools: list[Tool], results: Results) -> None:
    """Copy, then a run with nothing to do; once each, as peaks hardly vary."""
    for name in names:
        shape = SHAPES[name]
        where = roomy(int(shape.files * 2.3), 2 * shape.bytes_about())
        data = dataset(name, where)
        wanted = totals(data.root)
        for tool in tools:
            dest, home = empty(where / "run" / tool.name), empty(work() / "home")
            for step in ("copy", "noop"):
                argv = tool.command(Job(step, data.root, dest))
                if argv is None:
                    continue
                log = where / f"{tool.name}.log"
                used = run(argv, tool_env(home), log, limit=3600, with_pss=True)
                if used.code or totals(dest) != wanted:
                    raise BenchError(f"{tool.name} {step} of {name} failed: exit code {used.code}")
                results.write(
                    data=name, files=shape.files, step=step, tool=tool.name,
                    rss=used.rss, pss=used.pss, wall=round(used.wall, 2),
                )  # fmt: skip
                print(
                    f"{name} {step} {tool.name}: peak RSS {used.rss / 1e6:.1f} MB, "
                    f"PSS {used.pss / 1e6:.1f} MB, {used.wall:.1f} s",
                    flush=True,
                )
            shutil.rmtree(dest)


def section(records: list[Record]) -> list[str]:
    """The Markdown lines of this measurement."""
    lines = ["| files | step | tool | peak RSS MB | peak PSS MB |", "|" + " --- |" * 5]
    for r in sorted(records, key=lambda r: (r["files"], r["step"], r["rss"])):
        lines.append(f"| {r['files']:,} | {r['step']} | {r['tool']} | {r['rss'] / 1e6:.1f} | {r['pss'] / 1e6:.1f} |")
    return lines
