"""Where `backup_dir` may be, and what becomes of it."""

import time

import pytest

from events import changes_of_json
from running import started, with_means
from trees import Dir, File, build, keys, snapshot, text

FORCE = ("--delete", "--force-delete")


@pytest.mark.parametrize("place", [".", "{dst}", "{dst}/", "d/..", "{src}", "{src}/bk", "../src/bk"])
@pytest.mark.parametrize("options", [(), ("--delete", "--dry-run")], ids=["", "dry run"])
def test_neither_side_itself_is_a_place_for_backups(sync, src, dst, tmp_path, place, options):
    build(src, {"f": "new content", "d/": None})
    build(dst, {"f": "old", "d/": None})
    before = snapshot(tmp_path, untouched=True)
    done = sync("--backup-dir", place.format(src=src, dst=dst), *options)
    assert done.returncode == 1, done.stderr
    assert snapshot(tmp_path, untouched=True) == before


@pytest.mark.parametrize(("place", "thing"), [("bk", "bk/f"), ("bk", "bk"), ("d/bk", "d/bk/x/f"), ("{dst}/bk", "bk/f")])
@pytest.mark.parametrize("options", [(), FORCE, ("--dry-run",)], ids=" ".join)
def test_backups_and_something_of_the_source_do_not_share_a_place(sync, src, dst, place, thing, options):
    build(src, {"a": "new content", thing: "of the source"})
    build(dst, {"a": "old", "d/": None})
    before = snapshot(dst, untouched=True)
    done = sync("--backup-dir", place.format(dst=dst), *options)
    assert done.returncode == 1 and "backup" in done.stderr, done.stderr
    assert snapshot(dst, untouched=True) == before


def test_backups_may_be_beside_what_the_source_has(sync, src, dst):
    build(src, {"d/f": "new content", "bk2": "1"})
    build(dst, {"d/f": "old"})
    assert sync("--backup-dir", "d/bk", *FORCE).returncode == 0
    assert [text(path) for path in dst.glob("d/bk/*/d/f")] == ["old"]


@pytest.mark.parametrize("before", [{"x/bk/old/f": "1"}, {"x/bk/": None}, {}], ids=["full", "empty", "none"])
def test_a_directory_that_holds_the_backups_stays_in_a_dry_run_as_in_the_run(sync, src, dst, before):
    build(src, {"a": "new content", "b": "1"})
    build(dst, {"a": "old", "x/y/": None, "x/z": "gone", **before})
    line = ["--backup-dir", "x/bk", *FORCE, "--json"]
    planned, done = sync("--dry-run", *line), sync(*line)
    assert (planned.returncode, done.returncode) == (0, 0), done.stderr
    assert changes_of_json(planned.stdout) == changes_of_json(done.stdout)
    assert changes_of_json(done.stdout) >= {("a", "update"), ("b", "create"), ("x/z", "delete"), ("x/y", "delete")}
    assert keys(dst) >= {key.rstrip("/") for key in before}
    assert [text(path) for path in dst.glob("x/bk/*/x/z")] == ["gone"]


def test_runs_that_begin_in_the_same_second_do_not_mix_their_backups(sy_binary, src, tmp_path):
    build(src, {f"f{n:03}": "new content" for n in range(100)})
    places = ["one", "two", "three"]
    for place in places:
        build(tmp_path / place, {f"f{n:03}": place for n in range(100)})
    time.sleep(1 - time.time() % 1)
    line = [sy_binary, f"{src}/", "--backup-dir", tmp_path / "bk"]
    with (
        started([*line, f"{tmp_path}/one/"]) as one,
        started([*line, f"{tmp_path}/two/"]) as two,
        started([*line, f"{tmp_path}/three/"]) as three,
    ):
        assert [process.wait(timeout=30) for process in (one, two, three)] == [0, 0, 0]
    kept = [sorted(text(path) for path in folder.iterdir()) for folder in (tmp_path / "bk").iterdir()]
    assert sorted(kept) == sorted([place] * 100 for place in places)


@pytest.mark.parametrize(
    "options", [(), ("--backup-dir", "{tmp}/bk"), ("--backup-dir", "bk")], ids=["", "beside", "in"]
)
def test_deleting_in_a_read_only_directory_works_with_backups_as_without(sync, src, dst, tmp_path, options):
    build(src, {"d": Dir(mode=0o555), "d/f": "1", "g": "1"})
    build(
        dst, {"d": Dir(mode=0o555), "d/f": "1", "d/gone": "x", "locked": Dir(mode=0o555), "locked/gone": "x", "g": "1"}
    )
    options = [option.format(tmp=tmp_path) for option in options]
    done = sync(*FORCE, *options, prefix=with_means(unprivileged=True))
    assert done.returncode == 0, done.stderr
    assert {key for key in keys(dst) if not key.startswith("bk")} == {"d", "d/f", "g"}
    assert snapshot(dst)["d"]["mode"] == "0o555"
    assert len([key for key in keys(tmp_path) if key.endswith("/gone") and "bk/" in key]) == (2 if options else 0)


@pytest.mark.parametrize("backup", ["bk", "{tmp}/bk"], ids=["in", "beside"])
def test_replacing_in_a_read_only_directory_works_with_backups(sync, src, dst, tmp_path, backup):
    build(src, {"d": Dir(mode=0o555), "d/f": File("new content", mode=0o444)})
    build(dst, {"d": Dir(mode=0o555), "d/f": File("old", mode=0o444)})
    done = sync("--backup-dir", backup.format(tmp=tmp_path), prefix=with_means(unprivileged=True))
    assert done.returncode == 0, done.stderr
    assert text(dst / "d/f") == "new content"
    assert snapshot(dst)["d"]["mode"] == "0o555"
