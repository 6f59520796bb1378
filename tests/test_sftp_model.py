"""Random trees and random edits, to a host and back: what arrives is what the model says."""

import tempfile
from pathlib import Path

from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

import model
import sypy
from events import Recorder
from sshd import sshd
from test_model import compare, edited, playground, spec, trees
from trees import build, leftovers, snapshot

__all__ = ["playground", "sshd"]

options = st.fixed_dictionaries(
    {"delete": st.booleans()},
    optional={
        "equal": st.sampled_from(["checksum", "size_only", "ignore_times"]),
        "update": st.just(True),
        "existing": st.just(True),
        "ignore_existing": st.just(True),
        "exclude": st.lists(
            st.sampled_from(["*.tmp", "/a", "b/", "c", "a/b", "?", "a*", "*/"]), min_size=1, max_size=2
        ),
        "links": st.sampled_from(["preserve", "skip"]),
        "min_size": st.sampled_from([1, 11]),
        "preserve_permissions": st.just(False),
        "verify": st.just(True),
    },
).filter(lambda chosen: len(chosen) <= 4)
options = options.map(lambda chosen: {k if k != "equal" else v: v if k != "equal" else True for k, v in chosen.items()})


def whole(tree: model.Tree) -> model.Tree:
    """With times as SFTP tells them."""
    return {
        key: node | {"mtime_ns": node["mtime_ns"] // 10**9 * 10**9} if node["mtime_ns"] is not None else node
        for key, node in tree.items()
    }


@st.composite
def steps(draw):
    """A tree, the same with edits, and the options of both runs."""
    first = draw(trees)
    return first, draw(edited(first)), draw(options)


@settings(max_examples=15 if settings().max_examples < 1000 else 400, suppress_health_check=list(HealthCheck))
@given(step=steps(), is_push=st.booleans())
def test_the_destination_is_what_the_model_says(playground, sshd, step, is_push):
    before, after, chosen = step
    with tempfile.TemporaryDirectory(dir=playground) as place:
        root = Path(place)
        build(root / "dst", spec(before))
        build(root / "src", spec(after))
        source, dest = whole(snapshot(root / "src")), whole(snapshot(root / "dst"))
        try:
            want = model.expected(source, dest, chosen)
        except model.Undecided as undecided:
            event(f"undecided: {undecided}")
            return
        sides = (f"{root}/src/", f"{root}/dst/")
        sides = (sides[0], sshd.url(sides[1])) if is_push else (sshd.url(sides[0]), sides[1])
        arguments = chosen | ({"force_delete": True} if chosen.get("delete") else {}) | {"ssh": sshd.config}
        foretold, did, again = Recorder(), Recorder(), Recorder()
        try:
            sypy.sync(*sides, dry_run=True, on_event=foretold, **arguments)
            sypy.sync(*sides, on_event=did, **arguments)
        except sypy.PartialSyncError as partial:
            others = [error for error in partial.errors if "in the way" not in str(error)]
            if others:
                raise
            event("in the way")
            return
        assert foretold.changes == did.changes
        wrong = compare(want, whole(snapshot(root / "dst")))
        assert not wrong, "\n".join([*wrong[:20], str(chosen), f"push: {is_push}"])
        assert leftovers(root / "dst") == []
        if not chosen.get("ignore_times"):
            sypy.sync(*sides, on_event=again, **arguments)
            assert again.changes == set()
        event("done")
