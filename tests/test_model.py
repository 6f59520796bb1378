"""Random trees, random edits, random options: the destination is what the model says, and a dry run knew it before."""

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import assume, event, given
from hypothesis import strategies as st

import model
import sypy
from events import Recorder
from trees import WHEN, Dir, File, Link, build, difference, leftovers, snapshot

# Few names, times and contents, so that two trees often have something in common.
NAMES = ["a", "b", "c", "a-b", "a.tmp", "b.tmp", "é", "n\n", "\udcff", "x y ", "-x"]
TARGETS = ["a", "b", "../a", "b/c", "nowhere", "/etc/hostname", "a.tmp"]
CONTENTS = [b"", b"a", b"b", b"aa", b"bb", b"0123456789", b"x" * 5000, b"y" * 5000]
PATTERNS = ["*.tmp", "/a", "b/", "c", "a/b", "/b/*", "?", "*", "a*", "/*/c", "*/", "b/a/", "é"]

names = st.sampled_from(NAMES)
times = st.sampled_from([WHEN, WHEN + 1, WHEN - 10**9, WHEN + 10**9])
files = st.builds(File, st.sampled_from(CONTENTS), st.sampled_from([0o644, 0o600, 0o755, 0o444]), times)
links = st.builds(Link, st.sampled_from(TARGETS), times)
directories = st.builds(Dir, st.sampled_from([0o755, 0o700, 0o750]), times)


def folder(inner):
    return st.tuples(directories, st.dictionaries(names, inner, max_size=5))


leaves = st.one_of(files, files, links)
things = st.recursive(leaves, lambda inner: st.one_of(leaves, folder(inner)), max_leaves=14)
trees = st.dictionaries(names, things, max_size=7)


def overlay(tree: dict, edits: dict) -> dict:
    """`tree` with `edits` on top: what both have as directories is merged, else the edit wins."""
    result = dict(tree)
    for name, edit in edits.items():
        old = result.get(name)
        both = isinstance(old, tuple) and isinstance(edit, tuple)
        result[name] = (edit[0], overlay(old[1], edit[1])) if both else edit
    return result


@st.composite
def edited(draw, tree: dict) -> dict:
    kept = {name: thing for name, thing in tree.items() if draw(st.integers(0, 4))}
    return overlay(kept, draw(trees))


@st.composite
def pairs(draw):
    base = draw(trees)
    return draw(st.one_of(st.just(base), edited(base))), draw(st.one_of(edited(base), trees))


def spec(tree: dict, prefix: str = "") -> dict:
    flat: dict = {}
    for name, thing in tree.items():
        if isinstance(thing, tuple):
            flat[f"{prefix}{name}"] = thing[0]
            flat |= spec(thing[1], f"{prefix}{name}/")
        else:
            flat[f"{prefix}{name}"] = thing
    return flat


patterns = st.lists(st.sampled_from(PATTERNS), min_size=1, max_size=3)
options = st.fixed_dictionaries(
    {"delete": st.booleans()},
    optional={
        "equal": st.sampled_from(["checksum", "size_only", "ignore_times"]),
        "update": st.just(True),
        "existing": st.just(True),
        "ignore_existing": st.just(True),
        "exclude": patterns,
        "include": patterns,
        "links": st.sampled_from(["preserve", "follow", "skip"]),
        "min_size": st.sampled_from([1, 2, 11]),
        "max_size": st.sampled_from([1, 10, 4999]),
        "preserve_permissions": st.just(False),
        "parallel": st.sampled_from([1, 3, None]),
        "sparse": st.just(False),
        "verify": st.just(True),
    },
).filter(lambda chosen: len(chosen) <= 5 and chosen.get("min_size", 0) <= chosen.get("max_size", 5000))
# At most one of the three ways to compare.
options = options.map(lambda chosen: {k if k != "equal" else v: v if k != "equal" else True for k, v in chosen.items()})

SAME = ["files_created", "files_updated", "files_metadata_updated", "files_deleted", "files_skipped", "files_scanned"]
SAME += ["dirs_created", "dirs_deleted", "symlinks_created"]
CURRENT_UMASK = os.umask(0o022)
os.umask(CURRENT_UMASK)


@pytest.fixture(scope="module")
def playground():
    base = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=base, prefix="sypy-model-") as place:
        yield Path(place)


def counts(stats) -> dict[str, int]:
    return {name: getattr(stats, name) for name in SAME}


def compare(want: model.Tree, have: model.Tree) -> list[str]:
    for key, node in want.items():
        if node["mtime_ns"] is None and key in have:
            node["mtime_ns"] = have[key]["mtime_ns"]
    return difference(want, have)


@given(pair=pairs(), options=options)
def test_the_destination_is_what_the_model_says(playground, pair, options):
    with tempfile.TemporaryDirectory(dir=playground) as place:
        src, dst = f"{place}/src", f"{place}/dst"
        for root, tree in zip((src, dst), pair, strict=True):
            build(root, spec(tree))
        source, before = snapshot(src), snapshot(dst)
        try:
            seen = model.follow(source) if options.get("links") == "follow" else source
            want = model.expected(seen, before, options, CURRENT_UMASK)
        except model.Undecided as undecided:
            event(f"undecided: {undecided}")
            assume(False)
        how = {**options, "force_delete": options["delete"], "on_error": "collect"}
        planned, done = Recorder(), Recorder()

        dry = sypy.sync(f"{src}/", f"{dst}/", dry_run=True, on_event=planned, **how)
        assert snapshot(dst) == before and snapshot(src) == source

        wet = sypy.sync(f"{src}/", f"{dst}/", on_event=done, **how)
        wrong = compare(want, snapshot(dst))
        assert not wrong, "\n".join(wrong)
        assert snapshot(src) == source and not leftovers(dst)
        if wet.success:
            assert planned.changes == done.changes
            assert counts(dry) == counts(wet)

        after = snapshot(dst, untouched=True)
        again = sypy.sync(f"{src}/", f"{dst}/", **how)
        assert (again.files_created, again.files_deleted, again.dirs_created, again.dirs_deleted) == (0, 0, 0, 0)
        if not options.get("ignore_times"):
            assert (again.files_updated, again.files_metadata_updated) == (0, 0)
            if wet.success:
                assert snapshot(dst, untouched=True) == after


@given(tree=trees)
def test_any_tree_is_mirrored_with_delete(playground, tree):
    with tempfile.TemporaryDirectory(dir=playground) as place:
        src, dst = f"{place}/src", f"{place}/dst"
        build(src, spec(tree))
        build(dst, {"old": "1", "a": File("1", mtime_ns=WHEN - 7), "b/old": "1", "c/c/c": "1"})
        sypy.sync(f"{src}/", f"{dst}/", delete=True, force_delete=True)
        assert not difference(snapshot(src), snapshot(dst))


@given(tree=trees, groups=st.lists(st.lists(names, min_size=2, max_size=4, unique=True), max_size=3), data=st.data())
def test_any_hard_links_are_kept_and_found_again(playground, tree, groups, data):
    with tempfile.TemporaryDirectory(dir=playground) as place:
        src, dst = f"{place}/src", f"{place}/dst"
        for root in (src, dst):
            build(root, spec(tree))
            for number, group in enumerate(groups):
                folder_ = f"{root}/group{number}"
                os.mkdir(folder_)
                content = data.draw(st.sampled_from(CONTENTS)) if root == dst else CONTENTS[number]
                build(folder_, {group[0]: File(content)})
                for name in group[1:]:
                    if root == src or data.draw(st.booleans()):
                        os.link(f"{folder_}/{group[0]}", f"{folder_}/{name}")
        for _ in range(2):
            stats = sypy.sync(f"{src}/", f"{dst}/", preserve_hardlinks=True, checksum=True)
            assert not difference(snapshot(src, hardlinks=True), snapshot(dst, hardlinks=True))
        assert (stats.files_created, stats.files_updated) == (0, 0)
