"""Random trees and random edits, up to a store and down again: what arrives is what the model says."""

import tempfile
from pathlib import Path

from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

import model
from test_model import compare, edited, playground, spec, trees
from trees import Dir, build, leftovers, snapshot

__all__ = ["playground"]
EXAMPLES = 40

options = st.fixed_dictionaries(
    {"delete": st.booleans()},
    optional={
        "update": st.just(True),
        "existing": st.just(True),
        "ignore_existing": st.just(True),
        "exclude": st.lists(
            st.sampled_from(["*.tmp", "/a", "b/", "c", "a/b", "?", "a*", "*/"]), min_size=1, max_size=2
        ),
        "links": st.sampled_from(["preserve", "skip"]),
        "min_size": st.sampled_from([1, 11]),
    },
).filter(lambda chosen: len(chosen) <= 3)


def utf8(tree: dict) -> dict:
    """Without names that no key can be."""
    kept = {name: thing for name, thing in tree.items() if "\udcff" not in name and "\n" not in name}
    return {name: (Dir(), utf8(thing[1])) if isinstance(thing, tuple) else thing for name, thing in kept.items()}


def plain(tree: model.Tree) -> model.Tree:
    """Without what directories lose in a store."""
    return {
        key: node | {"mode": None, "mtime_ns": None} if node["kind"] == "directory" else node
        for key, node in tree.items()
    }


@st.composite
def steps(draw):
    """A tree, the same with edits, and the options of both runs."""
    first = draw(trees)
    return utf8(first), utf8(draw(edited(first))), draw(options)


# Each example has a bucket of its own, and `sync_at` keeps nothing.
@settings(
    max_examples=EXAMPLES if settings().max_examples < 1000 else 600,
    suppress_health_check=list(HealthCheck),
)
@given(step=steps())
def test_up_and_down_the_model_is_right(playground, moto, sync_at, step):
    before, after, chosen = step
    bucket = moto.bucket()
    with tempfile.TemporaryDirectory(dir=playground) as place:
        root = Path(place)
        build(root / "before", spec(before))
        build(root / "src", spec(after))
        sync_at(moto, f"{root}/before/", bucket.url("p/")).done()
        down = bucket.url("p/"), f"{root}/back/"
        if before:
            sync_at(moto, *down).done()
        try:
            want = model.expected(plain(snapshot(root / "src")), plain(snapshot(root / "before")), chosen)
        except model.Undecided as undecided:
            event(f"undecided: {undecided}")
            return
        force = {"force_delete": True} if chosen.get("delete") else {}
        arguments = chosen | force
        foretold = sync_at(moto, f"{root}/src/", bucket.url("p/"), dry_run=True, **arguments)
        did = sync_at(moto, f"{root}/src/", bucket.url("p/"), **arguments)
        if did.code == 25:
            event("an empty source")
            return
        blocked = [error for error in did.errors if "in the way" in error["message"]]
        assert len(blocked) == len(did.errors), did.errors
        assert foretold.changes == did.changes
        if bucket.all_keys():
            sync_at(moto, *down, delete=True, force_delete=True).done()
            wrong = compare(want, plain(snapshot(root / "back")))
            assert not wrong, "\n".join([*wrong[:20], str(chosen)])
            assert leftovers(root / "back") == []
        assert sync_at(moto, f"{root}/src/", bucket.url("p/"), **arguments).changes == set()
        event("done")
