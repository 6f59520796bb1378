"""Filters leave out and protect exactly what the programs do whose rules they follow: rsync and git."""

import os
import shutil
import subprocess

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trees import build, keys

with_processes = settings(max_examples=settings.default.max_examples // 3, suppress_health_check=list(HealthCheck))
needs_rsync = pytest.mark.skipif(not shutil.which("rsync"), reason="rsync is not installed")
needs_git = pytest.mark.skipif(not shutil.which("git"), reason="git is not installed")

# No name is both a directory's and a file's, so that any two trees fit together.
DIRECTORIES = ["a", "b", "ab", "foo"]
FILES = ["x", "xy", "foo.o", "b.c", ".h", "#x", "!x", "x ", "[x]"]

directories = st.lists(st.sampled_from(DIRECTORIES), max_size=3).map(
    lambda names: "".join(f"{name}/" for name in names)
)
files = st.builds(str.__add__, directories, st.sampled_from(FILES))
trees = st.lists(files | directories.filter(bool), min_size=1, max_size=15).map(lambda paths: dict.fromkeys(paths))

piece = st.sampled_from(
    ["*", "*", "**", "***", "?", "a", "b", "x", ".", "foo", "[!a]", "[a-f]", "[[:alpha:]", "[]x]", "\\", "\\*", "#"]
)
component = st.sampled_from([*DIRECTORIES, *FILES, "*", "**"]) | st.lists(piece, min_size=1, max_size=3).map("".join)
pattern = st.builds(
    lambda start, middle, end: start + "/".join(middle) + end,
    st.sampled_from(["", "", "/"]),
    st.lists(component, min_size=1, max_size=3),
    st.sampled_from(["", "", "/", "/***"]),
)
rule = st.builds(
    str.__add__, st.sampled_from(["- ", "- ", "+ ", "-! ", "H ", "S ", "P ", "R ", "-s ", "-p ", "exclude_"]), pattern
)
line = st.builds(
    lambda sign, text, end: sign + text + end,
    st.sampled_from(["", "", "!", "\\"]),
    pattern,
    st.sampled_from(["", "", " ", "\\ ", "\r"]),
)


def files_named(name, lines):
    """A file of this name, holding some of `lines`, in some directories."""
    content = st.lists(lines, max_size=4).map("\n".join)
    return st.dictionaries(directories.map(lambda directory: directory + name), content, max_size=3)


def grow(root, tree):
    """`tree` as a directory; its files are empty unless they have a content."""
    build(root, {path: content or (None if path.endswith("/") else "") for path, content in tree.items()})


def run_rsync(*args):
    return subprocess.run(["rsync", *map(str, args)], capture_output=True, text=True, check=False)


@needs_rsync
@with_processes
@given(
    tree=trees,
    rules=st.lists(rule, max_size=4),
    merged=files_named(".rules", rule),
    place=st.integers(0, 4),
    excludes=st.lists(pattern, max_size=2),
)
def test_copies_what_rsync_copies(run_sypy, tmp_path_factory, tree, rules, merged, place, excludes):
    top = tmp_path_factory.mktemp("filter")
    grow(top / "src", {"keep": None, **tree, **merged})
    rules.insert(place, ": .rules")
    options = [
        "--filter=+ /keep",
        *(f"--filter={rule}" for rule in rules),
        *(f"--exclude={pattern}" for pattern in excludes),
    ]
    for program, run in (("rsync", lambda *args: run_rsync("-a", *args)), ("sypy", run_sypy)):
        done = run(*options, f"{top}/src/", f"{top}/{program}/")
        assert done.returncode == 0, done.stderr
    assert keys(top / "sypy") == keys(top / "rsync")


@needs_rsync
@with_processes
@given(tree=trees, before=trees, rules=st.lists(rule, max_size=4))
def test_deletes_what_rsync_deletes(run_sypy, tmp_path_factory, tree, before, rules):
    top = tmp_path_factory.mktemp("filter")
    grow(top / "src", {"keep": None, **tree})
    options = ["--delete", "--filter=+ /keep", *(f"--filter={rule}" for rule in rules)]
    for program, run in (
        ("rsync", lambda *args: run_rsync("-a", *args)),
        ("sypy", lambda *args: run_sypy("--force-delete", *args)),
    ):
        grow(top / program, before)
        done = run(*options, f"{top}/src/", f"{top}/{program}/")
        assert done.returncode == 0, done.stderr
    assert keys(top / "sypy") == keys(top / "rsync")


@needs_git
@with_processes
@given(tree=trees, ignored=files_named(".gitignore", line))
def test_leaves_out_what_git_ignores(run_sypy, tmp_path_factory, tree, ignored):
    top = tmp_path_factory.mktemp("filter")
    grow(top / "src", {**tree, **ignored})
    environment = os.environ | {
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_DIR": str(top / "git"),
    }
    git = {"env": environment, "cwd": top / "src", "capture_output": True, "text": True}
    subprocess.run(["git", "init", "--quiet", "--template="], **git, check=True)
    subprocess.run(["git", "config", "core.bare", "false"], **git, check=True)
    asked = "\0".join(keys(top / "src"))
    answer = subprocess.run(
        ["git", "--work-tree=.", "check-ignore", "--no-index", "-z", "--stdin"], input=asked, **git, check=False
    )
    assert answer.returncode in (0, 1), answer.stderr

    done = run_sypy(f"{top}/src/", f"{top}/dst/", "--gitignore")
    assert done.returncode == 0, done.stderr
    assert keys(top / "dst") == keys(top / "src") - set(answer.stdout.split("\0"))
