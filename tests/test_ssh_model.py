"""Random trees and random edits, to a host and from one: what arrives is what the model says, and a dry run knew it before."""

import tempfile
from pathlib import Path

from hypothesis import HealthCheck, assume, event, given, settings

import model
from events import Recorder
from ssh_host import Way, host
from test_model import CURRENT_UMASK, compare, counts, options, pairs, playground, spec
from trees import build, leftovers, snapshot

__all__ = ["host", "playground"]
# Each makes five connections.
EXAMPLES = 12


def check(run: Way, root: Path, trees, chosen: dict) -> None:
    src, dst = root / "src", root / "dst"
    for place, tree in zip((src, dst), trees, strict=True):
        build(place, spec(tree))
    source, before = snapshot(src), snapshot(dst)
    try:
        seen = model.follow(source) if chosen.get("links") == "follow" else source
        want = model.expected(seen, before, chosen, CURRENT_UMASK)
    except model.Undecided as undecided:
        event(f"undecided: {undecided}")
        assume(False)
    how = {**chosen, "force_delete": chosen["delete"], "on_error": "collect"}
    planned, done = Recorder(), Recorder()
    sides = f"{src}/", f"{dst}/"
    dry = run(*sides, dry_run=True, on_event=planned, **how)
    assert snapshot(dst) == before and snapshot(src) == source
    wet = run(*sides, on_event=done, **how)
    wrong = compare(want, snapshot(dst))
    assert not wrong, "\n".join(wrong)
    assert snapshot(src) == source and not leftovers(dst)
    if wet.success:
        assert planned.changes == done.changes
        assert counts(dry) == counts(wet)
    after = snapshot(dst, untouched=True)
    again = run(*sides, **how)
    assert (again.files_created, again.files_deleted, again.dirs_created, again.dirs_deleted) == (0, 0, 0, 0)
    if not chosen.get("ignore_times"):
        assert (again.files_updated, again.files_metadata_updated) == (0, 0)
        if wet.success:
            assert snapshot(dst, untouched=True) == after


@settings(max_examples=EXAMPLES if settings().max_examples < 1000 else 300, suppress_health_check=list(HealthCheck))
@given(trees=pairs(), chosen=options)
def test_the_destination_is_what_the_model_says(playground, host, trees, chosen):
    # The login's umask is this process's: it is the same user.
    for is_push in (True, False):
        with tempfile.TemporaryDirectory(dir=playground) as place:
            check(Way(host, is_push), Path(place), trees, chosen)
