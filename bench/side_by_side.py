"""The main measurement: every tool does the same steps, in turns, and every result is checked."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from check import REMARKS, faults, plant
from datasets import Dataset, dataset
from measure import Usage, drop_caches, read_all, run, wait_quiet
from places import ROOT, BenchError, empty, tool_env, work
from results import Results, usage_fields
from tools import OURS, STEPS, Job, Tool


@dataclass(frozen=True)
class Plan:
    """What to measure. `limit` and `settle` are in seconds."""

    data: list[str]
    caches: list[str]  # "warm", "cold"
    steps: list[str]
    rounds: int
    limit: float = 900.0
    settle: float = 0.0


def measure_all(plan: Plan, tools: list[Tool], results: Results) -> bool:
    """Measure everything in `plan`; true if every result of ours was right."""
    if "cold" in plan.caches and not ROOT:
        raise BenchError("only root on Linux can empty the page cache; use --cache warm")
    if unknown := [step for step in plan.steps if step not in STEPS]:
        raise BenchError(f"no step {unknown[0]!r}; there are {', '.join(STEPS)}")
    right = True
    for name in plan.data:
        data = dataset(name)
        for number in range(plan.rounds):
            turn = number % len(tools)
            for cache in plan.caches:
                for tool in tools[turn:] + tools[:turn]:
                    chain = Chain(plan, data, cache, tool, number, results)
                    done = chain.run()
                    right = right and (done or tool.name not in OURS)
    return right


@dataclass
class Chain:
    """One tool, from an empty destination through all steps on its own result."""

    plan: Plan
    data: Dataset
    cache: str
    tool: Tool
    number: int
    results: Results

    def __post_init__(self) -> None:
        self.right = True
        self.dest = work() / "run" / self.tool.name
        self.home = work() / "home"
        self.log = work() / f"{self.tool.name}.log"
        self.changed: set[str] = set()

    def run(self) -> bool:
        empty(self.dest)
        empty(self.home)
        with ExitStack() as until_end:
            for step in self.plan.steps:
                argv = self.tool.command(Job(step, self.data.root, self.dest))
                if argv is None or (step == "del" and self.data.shape.big):
                    continue
                if not self.step(step, argv, until_end) and step == "copy":
                    break  # the other steps would not be what they are called
            shutil.rmtree(self.dest)
        return self.right

    def step(self, step: str, argv: list[str], until_end: ExitStack) -> bool:
        if step == "chg":
            self.changed = until_end.enter_context(self.data.edited())
        elif step == "del":
            until_end.enter_context(self.data.shrunk())
        must_read, undo = set(self.changed), None
        # A lone file with a flip has to be copied again, so the second time it gets none.
        if step == "cksum" or (step == "cksum2" and not self.data.shape.big):
            key, undo = plant(self.data.root, self.dest, int(step == "cksum2"))
            must_read.add(key)
        self.prepare_cache()
        wait_quiet(self.plan.settle)
        used = run(argv, tool_env(self.home), self.log, self.plan.limit)
        bad = faults(self.data.root, self.dest, must_read)
        if undo and undo():
            bad["content"] -= 1
            bad["flip not found"] = 1
            bad = {kind: count for kind, count in bad.items() if count}
        right = used.code == 0 and bad.keys() <= REMARKS
        self.right = self.right and right
        self.report(step, used, bad)
        return right

    def prepare_cache(self) -> None:
        if self.cache == "cold":
            drop_caches(work())
        else:
            read_all(self.data.root)
            read_all(self.dest)

    def report(self, step: str, used: Usage, bad: dict[str, int]) -> None:
        self.results.write(
            data=self.data.name, cache=self.cache, step=step, tool=self.tool.name,
            round=self.number, problems=bad, **usage_fields(used),
        )  # fmt: skip
        words = ", ".join(f"{n} {kind}" for kind, n in bad.items()) or "right"
        if used.code:
            words += f"; exit code {used.code}: {tail(self.log)}"
        print(
            f"{self.data.name} {self.cache} {step:6} {self.tool.name:9} round {self.number}: "
            f"{used.wall:8.3f} s, CPU {used.cpu:7.3f} s, peak {used.rss / 1e6:6.1f} MB, "
            f"others {used.others:.2f}; {words}",
            flush=True,
        )


def tail(log: Path) -> str:
    """The end of what a tool printed, on one line."""
    return " / ".join(log.read_text(errors="replace").strip().splitlines()[-3:])[-300:]
