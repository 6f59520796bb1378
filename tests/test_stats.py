"""What the stats count is what happened."""

import json
import os
import pickle

import sypy
from trees import WHEN, File, Link, build, rewrite, set_mtime


def counts(stats) -> dict[str, int]:
    names = "files_scanned files_created files_updated files_metadata_updated files_skipped files_deleted"
    names += " dirs_created dirs_deleted symlinks_created bytes_transferred"
    return {name: getattr(stats, name) for name in names.split() if getattr(stats, name)}


def test_a_first_copy(src, dst):
    build(src, {"a": "12345", "d/b": "123", "d/e/c": "", "l": Link("a")})
    dst.mkdir()
    stats = sypy.sync(f"{src}/", f"{dst}/")
    assert counts(stats) == {
        "files_scanned": 4, "files_created": 4, "dirs_created": 2, "symlinks_created": 1, "bytes_transferred": 8
    }  # fmt: skip


def test_a_mixed_run(src, dst):
    build(src, {"same1": "1", "same2": "2", "changed": "new content", "mode": File("1", mode=0o600), "new": "123"})
    build(dst, {"same1": "1", "same2": "2", "changed": "old", "mode": "1", "gone": "1", "gone-dir/f": "1"})
    stats = sypy.sync(f"{src}/", f"{dst}/", delete=True)
    assert counts(stats) == {
        "files_scanned": 5, "files_created": 1, "files_updated": 1, "files_metadata_updated": 1, "files_skipped": 2,
        "files_deleted": 2, "dirs_deleted": 1, "bytes_transferred": 14,
    }  # fmt: skip


def test_a_run_with_nothing_to_do(src, dst):
    build(src, {"a": "1", "d/b": "2"})
    sypy.sync(f"{src}/", f"{dst}/")
    stats = sypy.sync(f"{src}/", f"{dst}/", delete=True)
    assert counts(stats) == {"files_scanned": 2, "files_skipped": 2}
    assert stats.success and stats.bytes_read == 0


def test_every_file_that_was_looked_at_is_counted_once(src, dst):
    build(src, {f"f{n}": str(n) for n in range(30)})
    sypy.sync(f"{src}/", f"{dst}/")
    for n in range(0, 30, 3):
        rewrite(src / f"f{n}", "changed content")
    for n in range(1, 30, 3):
        os.chmod(src / f"f{n}", 0o600)
    build(src, {"new": "1"})
    stats = sypy.sync(f"{src}/", f"{dst}/")
    assert (stats.files_created, stats.files_updated, stats.files_metadata_updated, stats.files_skipped) == (
        1,
        10,
        10,
        10,
    )
    assert stats.files_scanned == 31


def test_bytes_read_tells_what_a_comparison_cost(src, dst):
    build(src, {"f": "x" * 10_000})
    build(dst, {"f": "x" * 10_000})
    assert sypy.sync(f"{src}/", f"{dst}/").bytes_read == 0
    assert sypy.sync(f"{src}/", f"{dst}/", checksum=True).bytes_read == 20_000


def test_a_file_of_another_size_is_not_read_to_be_compared(src, dst):
    build(src, {"f": "x" * 10_000})
    build(dst, {"f": "x" * 9_999})
    assert sypy.sync(f"{src}/", f"{dst}/", checksum=True).bytes_read <= 10_000


def test_a_time_set_alone_moves_no_bytes(src, dst):
    build(src, {"f": "x" * 10_000})
    sypy.sync(f"{src}/", f"{dst}/")
    set_mtime(src / "f", WHEN + 1)
    stats = sypy.sync(f"{src}/", f"{dst}/", checksum=True)
    assert counts(stats) == {"files_scanned": 1, "files_metadata_updated": 1}


def test_a_failed_file_is_neither_created_nor_skipped(src, dst):
    build(src, {"a": "12", "blocked": "345"})
    build(dst, {"blocked/full": "1"})
    stats = sypy.sync(f"{src}/", f"{dst}/", on_error="collect")
    assert counts(stats) == {"files_scanned": 2, "files_created": 1, "bytes_transferred": 2}
    assert not stats.success and len(stats.errors) == 1


def test_stats_travel(src, dst):
    build(src, {"a": "1"})
    stats = sypy.sync(f"{src}/", f"{dst}/")
    assert counts(pickle.loads(pickle.dumps(stats))) == counts(stats)
    assert json.loads(stats.to_json())["files_created"] == stats.to_dict()["files_created"] == 1
    assert stats.duration_secs > 0 and stats.transfer_rate > 0
