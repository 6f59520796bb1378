"""Tables in Markdown, made from the results file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from statistics import median

import memory
import overhead
import reflink
import startup
import syscalls
from check import REMARKS
from datasets import SHAPES
from places import SUITE, BenchError
from results import Record, latest, read
from tools import STEPS

README = SUITE / "README.md"
BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"

SECTIONS: dict[str, tuple[str, Callable[[list[Record]], list[str]]]] = {
    "syscalls": ("System calls per file", syscalls.section),
    "overhead": ("What Python adds: CPU time, medians", overhead.section),
    "import": ("Import time", startup.section),
    "memory": ("Peak memory", memory.section),
    "reflink": ("A 2 GiB file on XFS with reflinks", reflink.section),
}


def render(records: list[Record]) -> str:
    """All tables of the last measurements."""
    records = latest(records)
    if not records:
        raise BenchError("there are no results yet; bench/run makes them")
    lines: list[str] = []
    for name, shape in SHAPES.items():
        for cache in ("warm", "cold"):
            rows = [r for r in records if r["kind"] == "run" and r["data"] == name]
            if rows := [r for r in rows if r["cache"] == cache]:
                title = f"{name}: {shape.text}, {cache} cache"
                lines += ["", f"### {title}", "", *conditions(records, rows), ""]
                lines += steps_table(rows)
    lines += tables_of_ways(records, "cloud", "S3") + tables_of_ways(records, "ssh", "SSH")
    for kind, (title, section) in SECTIONS.items():
        if rows := [r for r in records if r["kind"] == kind]:
            lines += ["", f"### {title}", "", *conditions(records, rows), "", *section(rows)]
    return "\n".join(lines).strip() + "\n"


def tables_of_ways(records: list[Record], kind: str, place: str) -> list[str]:
    """There and back: a table for each data set, way and delay."""
    mine = [r for r in records if r["kind"] == kind]
    lines: list[str] = []
    for name, way in dict.fromkeys((r["data"], r["cache"]) for r in mine):
        rows = [r for r in mine if (r["data"], r["cache"]) == (name, way)]
        title = f"{place}, {way}: {name}, {SHAPES[name].text}"
        lines += ["", f"### {title}", "", *conditions(records, rows), "", *steps_table(rows)]
    return lines


def conditions(records: list[Record], rows: list[Record]) -> list[str]:
    """When and on what the rows were measured."""
    lines = []
    for session in sorted({r["session"] for r in rows}):
        for m in records:
            same = m.get("measured") == rows[0]["kind"] and m["session"] == session
            if m["kind"] == "machine" and same:
                tools = "; ".join(f"`{tool}` is {text}" for tool, text in m["tools"].items())
                lines.append(
                    f"{session[:10]}, commit {m['commit'] or 'unknown'}; {m['cores']} cores "
                    f"({m['cpu']}), {m['memory'] / 2**30:.0f} GiB, {m['kernel']}, "
                    f"{m['filesystem']}, Python {m['python']}.{' ' + tools + '.' if tools else ''}"
                )
    return lines


def steps_table(rows: list[Record]) -> list[str]:
    lines = [
        "| step | tool | runs | min / median / max s | / sy | CPU s | peak MB | flush s | others | result |",
        "|" + " --- |" * 10,
    ]
    for step in [*STEPS, "ins"]:
        of_step = [r for r in rows if r["step"] == step]
        ours = {r["round"]: r["wall"] for r in of_step if r["tool"] == "sy"}
        names = dict.fromkeys(r["tool"] for r in of_step)
        by_tool = {name: [r for r in of_step if r["tool"] == name] for name in names}
        for name in sorted(by_tool, key=lambda name: mid(by_tool[name], "wall")):
            lines.append(tool_row(step, name, by_tool[name], ours))
    return lines


def tool_row(step: str, name: str, rows: list[Record], ours: dict[int, float]) -> str:
    """One line; "/ sy" is the median over rounds of its time by that of ours in the same round."""
    wall = [r["wall"] for r in rows]
    pairs = [r["wall"] / ours[r["round"]] for r in rows if ours.get(r["round"])]
    times = f"{median(pairs):.2f}" if pairs else "-"
    cpu = median(r["user"] + r["sys"] for r in rows)
    peak = f"{mid(rows, 'rss') / 1e6:.1f}" if mid(rows, "rss") else "-"  # over too soon to be seen
    others = f"{mid(rows, 'others'):.1f}" if median(wall) > 0.1 else "-"  # counted in 10 ms
    return (
        f"| {step} | {name} | {len(rows)} | {min(wall):.3f} / {median(wall):.3f} / {max(wall):.3f} "
        f"| {times} | {cpu:.3f} | {peak} | {mid(rows, 'flush'):.2f} "
        f"| {others} | {verdict(rows)}{on_wire(rows)} |"
    )


def on_wire(rows: list[Record]) -> str:
    """What went through a link that counts."""
    wire = median(r.get("wire", 0) for r in rows)
    return f"; {wire / 1e6:.2f} MB on the wire" if wire else ""


def mid(rows: list[Record], field: str) -> float:
    return float(median(r[field] for r in rows))


def verdict(rows: list[Record]) -> str:
    """``right``, perhaps with a remark, or what was wrong in how many runs."""
    wrong = [r for r in rows if r["code"] or r["problems"].keys() - REMARKS]
    shown = (wrong or rows)[-1]
    words = [f"{n} {kind}" for kind, n in shown["problems"].items()]
    words += [f"exit code {shown['code']}"] if shown["code"] else []
    said = f"**wrong** {len(wrong)} of {len(rows)}" if wrong else "right"
    return f"{said}: {', '.join(words)}" if words else said


def write_readme(text: str) -> None:
    """Put the tables between the two markers of the README."""
    page = README.read_text(encoding="utf-8")
    if BEGIN not in page or END not in page:
        raise BenchError(f"{README.name} lacks the markers {BEGIN} and {END}")
    head, rest = page.split(BEGIN, 1)
    tail = rest.split(END, 1)[1]
    README.write_text(f"{head}{BEGIN}\n{text}{END}{tail}", encoding="utf-8")


def show(path: Path, readme: bool) -> None:
    text = render(read(path))
    if readme:
        write_readme(text)
        print(f"wrote the tables of {path.name} into bench/{README.name}")
    else:
        print(text)
