"""A dry run changes nothing at all, and says exactly what the run after it does."""

import json
import os

import pytest

import sypy
from events import Recorder, changes_of_details, changes_of_json
from running import run
from trees import WHEN, Dir, File, Hard, Link, build, keys, snapshot

OPTIONS = [
    {},
    {"delete": True},
    {"delete": True, "exclude": ["*.tmp"]},
    {"checksum": True},
    {"size_only": True, "delete": True},
    {"update": True},
    {"existing": True},
    {"ignore_existing": True, "delete": True},
    {"ignore_times": True},
    {"links": "skip"},
    {"links": "follow"},
    {"max_size": 5},
    {"preserve_permissions": False},
]
COUNTS = ["files_created", "files_updated", "files_metadata_updated", "files_deleted", "files_skipped", "dirs_created"]
COUNTS += ["dirs_deleted", "symlinks_created", "files_scanned"]


@pytest.fixture
def two(src, dst):
    build(
        src,
        {
            "new/deep/file": "1",
            "changed": "longer than it was",
            "flipped": "abc",
            "touched": File("same", mtime_ns=WHEN + 5),
            "mode": File("same", mode=0o600),
            "older": File("source", mtime_ns=WHEN - 5),
            "link": Link("changed"),
            "same": "same",
            "x.tmp": "1",
            "becomes-dir/f": "1",
            "dir": Dir(mode=0o700),
            "dir/f": "1",
        },
    )
    build(
        dst,
        {
            "changed": "short",
            "flipped": "abd",
            "touched": "same",
            "mode": "same",
            "older": "destination",
            "link": Link("elsewhere"),
            "same": "same",
            "gone/deep/f": "1",
            "gone.tmp": "1",
            "becomes-dir": "a file",
            "dir/f": "1",
        },
    )
    return src, dst


def forced(options):
    return {**options, "force_delete": True} if options.get("delete") else options


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_dry_run_changes_nothing_at_all(two, options):
    src, dst = two
    before = snapshot(src, untouched=True), snapshot(dst, untouched=True)
    sypy.sync(f"{src}/", f"{dst}/", dry_run=True, **forced(options))
    assert (snapshot(src, untouched=True), snapshot(dst, untouched=True)) == before


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_dry_run_and_the_run_after_it_agree_action_by_action(two, options):
    src, dst = two
    planned, done = Recorder(), Recorder()
    dry = sypy.sync(f"{src}/", f"{dst}/", dry_run=True, on_event=planned, **forced(options))
    wet = sypy.sync(f"{src}/", f"{dst}/", on_event=done, **forced(options))
    assert planned.changes == done.changes
    assert [getattr(dry, name) for name in COUNTS] == [getattr(wet, name) for name in COUNTS]
    assert planned.changes or options == {"links": "skip"}


def test_the_destination_is_not_even_made(src, dst):
    build(src, {"a": "1", "d/b": "22"})
    stats = sypy.sync(f"{src}/", f"{dst}/", dry_run=True)
    assert not dst.exists()
    assert (stats.files_created, stats.bytes_would_add) == (2, 3)


def test_nothing_is_made_in_the_state_directory_either(two, own_environment):
    src, dst = two
    sypy.sync(f"{src}/", f"{dst}/", dry_run=True)
    sypy.sync(f"{src}/", f"{dst}/", dry_run=True)
    assert not [name for name in os.listdir(dst) if name.startswith(".sypy")]


def test_the_summary_counts_files_and_weighs(two):
    src, dst = two
    stats = sypy.sync(f"{src}/", f"{dst}/", dry_run=True, delete=True, force_delete=True)
    summary = stats.dry_run_summary
    assert summary["would_create"]["count"] == stats.files_created
    assert summary["would_update"]["count"] == stats.files_updated
    assert summary["would_delete"]["count"] == stats.files_deleted
    assert summary["would_create"]["bytes"] == stats.bytes_would_add
    assert summary["would_update"]["bytes"] == stats.bytes_would_change
    assert summary["would_delete"]["bytes"] == stats.bytes_would_delete
    assert (dst / "gone/deep/f").exists()


def test_a_real_run_has_no_details(src, dst):
    build(src, {"a": "1"})
    assert sypy.sync(f"{src}/", f"{dst}/").dry_run_details is None


def test_the_details_name_every_change(src, dst):
    build(src, {"new/file": "1", "changed": "longer", "link": Link("x"), "same": "1", "a": "1", "b": "2"})
    build(dst, {"changed": "old", "gone": "1", "same": "1", "old/": None})
    details = sypy.sync(f"{src}/", f"{dst}/", dry_run=True, delete=True).dry_run_details
    assert changes_of_details(details, dst) == {
        ("new", "create"), ("new/file", "create"), ("link", "create"), ("a", "create"), ("b", "create"),
        ("changed", "update"), ("gone", "delete"), ("old", "delete"),
    }  # fmt: skip
    assert details.total_changes == 8
    assert [change.size for change in details.file_changes if change.path.endswith("changed")] == [6]


def test_json_of_a_dry_run_and_of_the_run_agree(two, command):
    src, dst = two
    line = [*command, f"{src}/", f"{dst}/", "--delete", "--force-delete", "--json"]
    planned, done = run([*line, "--dry-run"]), run(line)
    assert (planned.returncode, done.returncode) == (0, 0)
    assert changes_of_json(planned.stdout) == changes_of_json(done.stdout) != set()


def test_the_plan_is_itemised_with_reasons(two, command):
    src, dst = two
    done = run([*command, "--dry-run", f"{src}/", f"{dst}/", "--delete"])
    assert done.returncode == 0, done.stderr
    lines = {
        key: [line for line in done.stdout.splitlines() if key in line]
        for key in ("new/deep/file", "changed", "gone.tmp")
    }
    assert (
        "new" in lines["new/deep/file"][0]
        and "size" in lines["changed"][0]
        and "delete" in lines["gone.tmp"][0].lower()
    )
    assert not any("same" in line.split() for line in done.stdout.splitlines())


def test_a_dry_run_needs_no_right_to_write(src, dst):
    from running import sync_unprivileged

    build(src, {"a": "1"})
    build(dst, {"b": "2"})
    os.chmod(dst, 0o555)
    stats = sync_unprivileged(f"{src}/", f"{dst}/", dry_run=True)
    os.chmod(dst, 0o755)
    assert stats.files_created == 1 and keys(dst) == {"b"}


def test_a_dry_run_names_what_it_would_do_in_the_order_of_the_keys(src, dst):
    build(src, {"a": "1", "b/x": "1", "b/y/z": "1", "b-": "1", "c": "1", "b.d/f": "1"})
    seen = []
    sypy.sync(f"{src}/", f"{dst}/", dry_run=True, on_event=lambda event: seen.append((event.path, event.kind)))
    keys = [f"{path}/" if kind == "directory" else path for path, kind in seen]
    assert keys == ["a", "b-", "b.d/", "b.d/f", "b/", "b/x", "b/y/", "b/y/z", "c"]


def errors_of_json(done):
    return [(os.path.basename(event["path"]), event["kind"]) for event in events_of(done) if event["event"] == "error"]


def events_of(done):
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_protected_entry_holds_a_directory_against_a_file_in_both(sync, src, dst):
    build(src, {"x": "now a file", "1": "1", "2": "2", "3": "3"})
    build(dst, {"x/keep": "precious", "x/gone": "1"})
    line = ["--delete", "--force-delete", "--filter", "P keep", "--json"]
    planned, done = sync("--dry-run", *line), sync(*line)
    assert (planned.returncode, done.returncode) == (23, 23)
    assert changes_of_json(planned.stdout) == changes_of_json(done.stdout)
    assert errors_of_json(planned) == errors_of_json(done)
    assert [name for name, _ in errors_of_json(done)] == ["x"]
    assert (dst / "x/keep").read_text() == "precious"


def test_linked_trees_that_are_equal_need_nothing(sync, src, dst):
    build(src, {"f": "1", "g": Hard("f"), "d/h": Hard("f")})
    assert sync("-H").returncode == 0
    for options in (["-H"], ["-H", "-c"], ["-H", "-c", "-n"], ["-a", "-c", "-n"], ["-H", "-n"]):
        done = sync(*options, "--json")
        assert (done.returncode, changes_of_json(done.stdout)) == (0, set()), options


def test_an_attribute_of_a_directory_is_said_in_both(sync, src, dst):
    build(src, {"d/f": "1"})
    assert sync().returncode == 0
    try:
        os.setxattr(src / "d", "user.tag", b"blue")
    except OSError:
        pytest.skip("no extended attributes here")
    planned, done, again = (sync("-X", "--json", *options) for options in (["-n"], [], []))
    assert changes_of_json(planned.stdout) == changes_of_json(done.stdout) == {("d", "metadata")}
    assert changes_of_json(again.stdout) == set()
    assert os.getxattr(dst / "d", "user.tag") == b"blue"


def test_no_trash_is_made(sync, src, dst, own_environment):
    build(src, {"a": "1"})
    build(dst, {"a": "1", "gone": "x"})
    assert sync("-n", "--delete", "--trash").returncode == 0
    assert not (own_environment / "data").exists()
    assert keys(dst) == {"a", "gone"}
