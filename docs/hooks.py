"""Makes the reference pages from what declares the options and the API, so that they cannot drift from it.

Options: `sy/src/cli/options.rs` has the spelling on the command line, the built package the text, `_sypy.pyi` the type.
Python: the built package has the texts and signatures, `_sypy.pyi` and `_errors.py` the types.
"""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

import sypy

REPO = Path(__file__).resolve().parent.parent
PACKAGE = REPO / "sypy/python/sypy"
STUB = ast.parse((PACKAGE / "_sypy.pyi").read_text())
ALIASES = {
    node.target.id: ast.unparse(node.value)
    for node in STUB.body
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value
}


def on_files(files, config):
    """Adds the generated pages to the site."""
    pages = {"reference/options.md": options_page, "reference/python.md": python_page}
    for path, page in pages.items():
        files.append(File.generated(config, path, content=page()))
    return files


# Options.


def options_page() -> str:
    """The table of all options, under the headings of the command line's help."""
    declared = declared_options()
    known = set(sypy.SyncOptions().to_dict())
    types = {name: kind for name, kind in attributes_of("_Options").items() if name in known}
    in_python_only = [name for name in types if name not in {name for rows in declared.values() for name, _ in rows}]
    described = {name for rows in declared.values() for name, _ in rows} | set(in_python_only)
    if described != known:
        raise PluginError(f"the declarations of options disagree about {', '.join(sorted(described ^ known))}")
    check_spellings(flag for rows in declared.values() for _, flags in rows for flag in flags)
    lines = [
        "# Options",
        "",
        "Each is a keyword of [`sync()`](python.md#sync) and a field of [`SyncOptions`](python.md#syncoptions).",
        "None is needed. Flags that say what to print are on the page of the [command line](../cli.md); callbacks are",
        "in [`sync()`](python.md#sync).",
        "",
        "Sizes are bytes, or text: `10MB` is decimal, `10MiB` and `10M` are binary. Times are seconds, a `timedelta`,",
        "or text such as `90s`, `36h`, `2d`.",
        "",
    ]
    for heading, rows in [*declared.items(), ("In Python only", [(name, []) for name in in_python_only])]:
        with_flags = any(flags for _, flags in rows)
        titles = ["option", "type", *(["command line"] if with_flags else []), "what it does"]
        lines += [f"## {heading}", "", row(titles), row(["---"] * len(titles))]
        for name, flags in rows:
            spelling = [" ".join(f"`{flag}`" for flag in flags)] if with_flags else []
            text = getattr(sypy.SyncOptions, name).__doc__ or ""
            lines.append(row([f"`{name}`", f"`{types[name]}`", *spelling, " ".join(text.split())]))
        lines.append("")
    return "\n".join(lines)


def declared_options() -> dict[str, list[tuple[str, list[str]]]]:
    """The options by heading: each with its flags, as `options.rs` declares them."""
    text = (REPO / "sy/src/cli/options.rs").read_text()
    body = re.search(r"^options! \{\n(.*?)^\}", text, re.DOTALL | re.MULTILINE)
    found: dict[str, list[tuple[str, list[str]]]] = {}
    for attribute, name in re.findall(r"#\[arg\((.*)\)\]\n\s*(\w+): ", body[1] if body else ""):
        heading = re.search(r'help_heading = "([^"]+)"', attribute)
        long = re.search(r'\blong(?: = "([^"]+)")?', attribute)
        short = re.search(r"\bshort(?: = '(.)')?", attribute)
        value = re.search(r'value_name = "([^"]+)"', attribute)
        if not heading or not long:
            raise PluginError(f"options.rs: no heading or no long flag for {name}")
        flags = [f"-{short[1] or name[0]}"] if short else []
        flags.append(f"--{long[1] or name.replace('_', '-')}" + (f" {value[1]}" if value else ""))
        found.setdefault(heading[1], []).append((name, flags))
    return found


def check_spellings(flags) -> None:
    """Each flag must be one that the command knows."""
    done = subprocess.run([sys.executable, "-m", "sypy", "--help"], capture_output=True, text=True, check=True)
    words = set(re.findall(r"(?<![\w-])--?[\w-]+", done.stdout))
    unknown = [flag for flag in flags if flag.split()[0] not in words]
    if unknown:
        raise PluginError(f"the command does not know {', '.join(unknown)}")


# The Python API.


def python_page() -> str:
    """Everything public, with its text, in three parts."""
    public = [name for name in sypy.__all__ if not name.startswith("__")]
    things = {name: getattr(sypy, name) for name in public}
    errors = [name for name, thing in things.items() if isinstance(thing, type) and issubclass(thing, BaseException)]
    classes = [name for name, thing in things.items() if isinstance(thing, type) and name not in errors]
    functions = [name for name in public if name not in classes and name not in errors]
    errors.sort(key=lambda name: (len(things[name].__mro__), name))
    lines = ["# Python", "", "All of it is in the module `sypy`. `help()` shows the same texts.", ""]
    lines += [
        "A location is text, `bytes`, a path object of `pathlib`, universal_pathlib, cloudpathlib or fsspec, or a"
    ]
    lines += ["`SyncPath`.", ""]
    for title, names in [("Functions", functions), ("Classes", classes), ("Exceptions", errors)]:
        lines += [f"## {title}", ""]
        for name in names:
            lines += describe(name, things[name])
    return "\n".join(lines)


def describe(name: str, thing) -> list[str]:
    """One function or class."""
    lines = [f"### {name}", ""]
    if not isinstance(thing, type):
        return [*lines, *signature(name, thing), *markdown(thing.__doc__)]
    if issubclass(thing, BaseException):
        bases = ", ".join(base.__name__ for base in thing.__bases__)
        lines += [f"Derives from `{bases}`.", ""]
    elif not hasattr(thing, "Create"):  # Its members are made already.
        lines += signature(name, thing)
    lines += markdown(thing.__doc__)
    if name == "SyncOptions":
        lines += ["The fields are in the table of [options](options.md).", ""]
    return lines + members(name, thing)


def members(name: str, thing) -> list[str]:
    """A table of the attributes, then the methods."""
    types, texts = attributes_of(name), error_texts() if thing is sypy.SyncError else {}
    attributes, methods = [], []
    for member, value in vars(thing).items():
        if member.startswith("_") or (name == "SyncOptions" and member in types):
            continue
        if callable(value) or isinstance(value, staticmethod):
            bound = getattr(thing, member)
            methods += [f"#### {name}.{member}", "", *signature(member, bound), *markdown(bound.__doc__)]
        elif member not in texts:
            attributes.append((member, types.get(member, ""), getattr(value, "__doc__", "") or ""))
    order = list(types)
    attributes.sort(key=lambda found: order.index(found[0]) if found[0] in order else len(order))
    attributes += [(member, *described) for member, described in texts.items()]
    if not attributes or name == "ChangeAction":
        return methods
    rows = []
    for member, kind, text in attributes:
        plain = text.partition(">>>")[0]
        rows.append(row([f"`{member}`", f"`{kind}`" if kind else "", " ".join(plain.split())]))
    return [row(["attribute", "type", "what"]), row(["---"] * 3), *rows, "", *methods]


def signature(name: str, thing) -> list[str]:
    """How it is called, or nothing if that is not known."""
    try:
        found = inspect.signature(thing)
    except (TypeError, ValueError):
        return []
    empty = inspect.Parameter.empty
    parameters = [one.replace(annotation=empty) for one in found.parameters.values() if one.name != "self"]
    return ["```python", f"{name}{inspect.Signature(parameters)}", "```", ""]


def attributes_of(name: str) -> dict[str, str]:
    """The types of a class's attributes, also those of its bases, from the stub."""
    found = next((node for node in STUB.body if isinstance(node, ast.ClassDef) and node.name == name), None)
    types = {}
    for base in found.bases if found else []:
        types |= attributes_of(ast.unparse(base))
    for node in found.body if found else []:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            types[node.target.id] = spelled(node.annotation)
        elif isinstance(node, ast.FunctionDef) and [ast.unparse(one) for one in node.decorator_list] == ["property"]:
            types[node.name] = spelled(node.returns)
    return types


def spelled(annotation: ast.expr) -> str:
    """A type without the stub's own short names."""
    text = ast.unparse(annotation)
    while found := next((alias for alias in ALIASES if re.search(rf"\b{alias}\b", text)), None):
        text = re.sub(rf"\b{found}\b", ALIASES[found], text)
    return text


def error_texts() -> dict[str, tuple[str, str]]:
    """Attributes of `SyncError` that are only annotated: type, and the text below."""
    tree = ast.parse((PACKAGE / "_errors.py").read_text())
    body = next(node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "SyncError")
    return {
        node.target.id: (ast.unparse(node.annotation), text.value.value)
        for node, text in pairwise(body)
        if isinstance(node, ast.AnnAssign) and isinstance(text, ast.Expr)
    }


# Markdown.


def markdown(text: str | None) -> list[str]:
    """A docstring: examples become blocks."""
    lines, in_example = [], False
    for line in inspect.cleandoc(text or "").splitlines():
        begins = line.startswith(">>>") and not in_example
        ends = in_example and not line.strip()
        lines += ["```pycon"] if begins else ["```"] if ends else []
        in_example = begins or (in_example and not ends)
        lines.append(line)
    return [*lines, *(["```"] if in_example else []), ""]


def row(cells: list[str]) -> str:
    """A row of a table. A bar within `code` parts no cells."""
    return f"| {' | '.join(cells)} |"
