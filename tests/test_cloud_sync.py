"""What a run does between local trees and object stores, and from store to store: alike with every server."""

import os
import random

import pytest

from fault_proxy import Do
from trees import WHEN, Dir, File, Link, build, difference, keys, rewrite, set_mtime, snapshot

MIB = 1 << 20
TREE = {
    "a.txt": File("text", mode=0o640),
    "run": File(b"#!/bin/sh\n", mode=0o755, mtime_ns=WHEN + 1),
    "zero": File(b"", mtime_ns=1),
    "before-1970": File("old", mtime_ns=-1_500_000_000),
    "d/e/deep": "deep",
    "d/link": Link("../a.txt", mtime_ns=WHEN + 7),
    "dangling": Link("nowhere/ü"),
    "empty/": Dir(),
    "d/empty too/": Dir(),
    "né ü 日本 😀": "names",
    "sp ace+%41&?#=;:@!$'(),~*\"<>|^`{}[]": "odd",
    "-x": "dash",
    "t\tab": "control",
    "...": "dots",
    "a-b/a": "beside",
    "a/b": "a directory",
}


def plain(tree: dict) -> dict:
    """A snapshot without what directories lose in an object store: their modes and times."""
    return {key: {"kind": "directory"} if node["kind"] == "directory" else node for key, node in tree.items()}


def assert_same(a, b) -> None:
    wrong = difference(plain(snapshot(a)), plain(snapshot(b)))
    assert not wrong, "\n".join(wrong[:40])


@pytest.fixture
def bucket(store):
    return store.bucket()


# There and back.


def test_a_tree_comes_back_as_it_was(store, bucket, sync_at, src, dst):
    build(src, TREE)
    up = sync_at(store, f"{src}/", bucket.url("backup/tree/")).done()
    assert up.stats["files_created"] == len([thing for thing in TREE.values() if not isinstance(thing, Dir)])
    assert all(key.startswith("backup/tree/") for key in bucket.all_keys())
    sync_at(store, bucket.url("backup/tree/"), f"{dst}/").done()
    assert_same(src, dst)


def test_a_whole_bucket_is_a_place(store, bucket, sync_at, src, dst):
    build(src, {"a": "1", "d/b": "2"})
    sync_at(store, f"{src}/", bucket.url().rstrip("/")).done()
    assert bucket.all_keys() == {"a", "d/b"}
    sync_at(store, bucket.url().rstrip("/"), dst).done()
    assert_same(src, dst)


def test_sizes_around_every_limit(store, bucket, sync_at, src, dst):
    dice = random.Random(1)
    around = [near * MIB + n for near in (1, 16, 32) for n in (-1, 0, 1)]
    build(src, {f"{size}": dice.randbytes(size) for size in [0, 1, 8 * MIB + 1, *around]})
    sync_at(store, f"{src}/", bucket.url("sizes/")).done()
    assert {key: item["Size"] for key, item in bucket.listed("sizes/").items()} == {
        f"sizes/{name}": int(name) for name in keys(src)
    }
    assert bucket.uploads() == []
    sync_at(store, bucket.url("sizes/"), f"{dst}/").done()
    assert_same(src, dst)


def test_a_name_that_is_not_utf8_fails_and_the_rest_goes(store, bucket, sync_at, src):
    build(src, {b"bad \xff": "1", b"d\xfe/x": "2", "good": "3", "d/good": "4"})
    outcome = sync_at(store, f"{src}/", bucket.url())
    assert outcome.code == 23
    assert bucket.all_keys() == {"good", "d/good"}
    assert all("UTF-8" in error["message"] for error in outcome.errors)
    assert {error["path"].removeprefix(bucket.url()) for error in outcome.errors} >= {"bad \udcff", "d\udcfe/x"}


def test_a_name_that_azure_cannot_have_fails_and_the_rest_goes(azurite, sync_at, src):
    bucket = azurite.bucket()
    build(src, {"back\\slash": "1", "good": "2"})
    outcome = sync_at(azurite, f"{src}/", bucket.url())
    assert outcome.code == 23
    assert [error["path"] for error in outcome.errors] == [bucket.url("back\\slash")]
    assert bucket.all_keys() == {"good"}


def test_a_run_without_changes_changes_nothing(store, bucket, sync_at, src, dst):
    build(src, TREE)
    sync_at(store, f"{src}/", bucket.url("x/")).done()
    sync_at(store, bucket.url("x/"), f"{dst}/").done()
    before, there = bucket.tags(), snapshot(dst, untouched=True)
    for _ in range(2):
        assert sync_at(store, f"{src}/", bucket.url("x/"), delete=True).done().changes == set()
        assert sync_at(store, bucket.url("x/"), f"{dst}/", delete=True).done().changes == set()
    assert bucket.tags() == before
    assert snapshot(dst, untouched=True) == there


def test_changes_are_found_and_carried_over(store, bucket, sync_at, src, dst):
    build(src, {"same": "1", "longer": "2", "touched": "3", "gone": "4", "d/gone": "5", "swap/x": "6", "swop": "7"})
    sync_at(store, f"{src}/", bucket.url("x/")).done()
    sync_at(store, bucket.url("x/"), f"{dst}/").done()
    rewrite(src / "longer", "2 and more", WHEN + 5)
    set_mtime(src / "touched", WHEN + 10)
    os.unlink(src / "gone")
    os.unlink(src / "d/gone")
    os.rmdir(src / "d")
    os.unlink(src / "swap/x")
    os.rmdir(src / "swap")
    os.unlink(src / "swop")
    build(src, {"swap": File("now a file"), "swop/y": "now a directory", "new": "8"})
    # Each edit changed its directory's time, which no store keeps.
    up = sync_at(store, f"{src}/", bucket.url("x/"), delete=True, force_delete=True).done()
    assert {(key, what) for key, what in up.changes if "/" not in key and what == "update"} >= {("longer", "update")}
    assert bucket.objects("x/") == {
        "same": b"1", "longer": b"2 and more", "touched": b"3", "swap": b"now a file", "swop/y": b"now a directory", "new": b"8",
    }  # fmt: skip
    sync_at(store, bucket.url("x/"), f"{dst}/", delete=True, force_delete=True).done()
    assert_same(src, dst)


@pytest.mark.parametrize("way", ["up", "across"])
def test_what_takes_the_place_of_an_empty_directory_stands_there_alone(store, bucket, sync_at, src, dst, way):
    build(src, {"a/": None, "b/": None, "c": "1"})
    other = store.bucket()
    for place in (bucket, other):
        sync_at(store, f"{src}/", place.url("x/")).done()
    os.rmdir(src / "a")
    os.rmdir(src / "b")
    build(src, {"a": "now a file", "b": Link("c")})
    sync_at(store, f"{src}/", bucket.url("x/")).done()
    if way == "across":
        sync_at(store, bucket.url("x/"), other.url("x/")).done()
    there = bucket if way == "up" else other
    assert there.all_keys() == {"x/a", "x/b", "x/c"}
    sync_at(store, there.url("x/"), f"{dst}/").done()
    assert_same(src, dst)


def test_without_times_or_permissions_none_travel(store, bucket, sync_at, src):
    build(src, {"a": File("1", mode=0o600)})
    sync_at(store, f"{src}/", bucket.url(), preserve_times=False, preserve_permissions=False).done()
    assert not {"mtime", "mode"} & bucket.metadata("a").keys()


def test_bits_that_give_privileges_come_back_only_with_the_owner(store, bucket, sync_at, src, dst):
    bucket.put("su", "x", {"mode": str(0o104755), "mtime": "1700000000"})
    sync_at(store, bucket.url(), f"{dst}/").done()
    assert snapshot(dst)["su"]["mode"] == oct(0o755)


# What paths mean.


@pytest.mark.parametrize(
    ("source", "dest", "there"),
    [
        ("src/", "p/", {"p/a", "p/d/b"}),
        ("src/", "p", {"p/a", "p/d/b"}),
        ("src", "p/", {"p/src/a", "p/src/d/b"}),
        ("src", "p", {"p/src/a", "p/src/d/b"}),
        ("src", "", {"src/a", "src/d/b"}),
        ("src/a", "p/", {"p/a"}),
        ("src/a", "p/new", {"p/new"}),
        ("src/a", "new", {"new"}),
        ("src/a", "", {"a"}),
    ],
)
def test_a_trailing_slash_of_the_source_means_its_contents(moto, sync_at, tmp_path, src, source, dest, there):
    build(src, {"a": "1", "d/b": "2"})
    bucket = moto.bucket()
    sync_at(moto, f"{tmp_path}/{source}", bucket.url(dest)).done()
    assert bucket.all_keys() == there


@pytest.mark.parametrize(
    ("source", "dest", "there"),
    [
        ("p/", "dst/", {"a", "d", "d/b"}),
        ("p", "dst/", {"p", "p/a", "p/d", "p/d/b"}),
        ("p", "dst", {"p", "p/a", "p/d", "p/d/b"}),
        ("p/d/", "dst", {"b"}),
        ("p/a", "dst/", {"a"}),
        ("p/a", "dst/new", {"new"}),
        ("p/d/b", "dst/sub/", {"sub", "sub/b"}),
    ],
)
def test_the_same_holds_for_a_source_in_a_bucket(moto, sync_at, tmp_path, dst, source, dest, there):
    bucket = moto.bucket()
    for key in ("p/a", "p/d/b", "p-other", "pp/x"):
        bucket.put(key, key)
    dst.mkdir()
    sync_at(moto, bucket.url(source), f"{tmp_path}/{dest}").done()
    assert keys(dst) == there


def test_a_single_file_takes_the_very_name_unless_that_is_a_directory(store, bucket, sync_at, src, dst):
    build(src, {"one": File("1", mode=0o600)})
    bucket.put("dir/other", "2")
    sync_at(store, src / "one", bucket.url("name")).done()
    sync_at(store, src / "one", bucket.url("dir")).done()
    assert bucket.all_keys() == {"name", "dir/one", "dir/other"}
    sync_at(store, bucket.url("name"), dst).done()
    there, here = dst.stat(), (src / "one").stat()
    assert dst.read_text() == "1" and (there.st_mode, there.st_mtime_ns) == (here.st_mode, here.st_mtime_ns)
    assert sync_at(store, src / "one", bucket.url("name")).done().changes == set()
    assert sync_at(store, bucket.url("name"), dst).done().changes == set()


def test_a_source_that_is_not_there_is_an_error_and_deletes_nothing(store, bucket, sync_at, dst):
    build(dst, {"keep": "1"})
    for source in ("no/", "no"):
        outcome = sync_at(store, bucket.url(source), f"{dst}/", delete=True, force_delete=True)
        assert outcome.code == 1 and outcome.error["kind"] == "not_found"
        assert keys(dst) == {"keep"}


def test_a_place_within_itself_is_refused(store, bucket, sync_at):
    bucket.put("a/b", "1")
    for source, dest in (("a/", "a/"), ("a/", "a/deeper/"), ("", "a/"), ("a/", ""), ("a/b", "a/b"), ("a/b", "a/")):
        outcome = sync_at(store, bucket.url(source), bucket.url(dest), delete=True, force_delete=True)
        assert outcome.code == 1 and outcome.error["kind"] == "config", (source, dest)
    assert bucket.objects() == {"a/b": b"1"}


# Store to store.


def test_within_a_store_the_service_copies(store, bucket, sync_at, proxied, src, dst):
    build(src, TREE)
    sync_at(store, f"{src}/", bucket.url("from/")).done()
    server, proxy = proxied(store)
    sync_at(server, bucket.url("from/"), bucket.url("to/deep/")).done()
    assert proxy.count("PUT", "PART") <= 4, "markers of empty directories, and links"
    assert not [request for request in proxy.of("GET") if "link" not in request.key and "dangling" not in request.key]
    assert bucket.objects("from/") == bucket.objects("to/deep/")
    assert {key: bucket.metadata(f"from/{key}") for key in bucket.objects("from/")} == {
        key: bucket.metadata(f"to/deep/{key}") for key in bucket.objects("from/")
    }
    sync_at(store, bucket.url("to/deep/"), f"{dst}/").done()
    assert_same(src, dst)
    assert sync_at(store, bucket.url("from/"), bucket.url("to/deep/"), delete=True).done().changes == set()


def test_between_two_buckets_with_deletions(store, bucket, sync_at):
    other = store.bucket()
    for key in ("a", "d/b", "d/c"):
        bucket.put(key, key)
    for key in ("d/c", "old", "gone/x"):
        other.put(key, "before")
    sync_at(store, bucket.url(), other.url(), delete=True, force_delete=True).done()
    assert other.objects() == {"a": b"a", "d/b": b"d/b", "d/c": b"d/c"}


# Deleting.


def fill(src, bucket, extra: int) -> None:
    build(src, {f"s{n}": "1" for n in range(4)})
    for n in range(4):
        bucket.put(f"x/s{n}", "1", {"mtime": "1700000000.123456789", "mode": "33188"})
    for n in range(extra):
        bucket.put(f"x/d/extra{n}", "2")
    bucket.put("xylophone", "not below x/")


def test_what_the_source_does_not_have_goes(store, bucket, sync_at, src):
    fill(src, bucket, 3)
    outcome = sync_at(store, f"{src}/", bucket.url("x/"), delete=True).done()
    assert bucket.all_keys() == {*(f"x/s{n}" for n in range(4)), "xylophone"}
    assert outcome.stats["files_deleted"] == 3


@pytest.mark.parametrize("limit", [{}, {"max_delete": 5, "delete_threshold": 100}], ids=str)
def test_too_many_deletions_are_refused_and_none_is_done(store, bucket, sync_at, src, limit):
    fill(src, bucket, 6)
    before = bucket.tags()
    outcome = sync_at(store, f"{src}/", bucket.url("x/"), delete=True, **limit)
    assert outcome.code == 25 and outcome.error["kind"] == "delete_limit"
    assert bucket.tags() == before
    sync_at(store, f"{src}/", bucket.url("x/"), delete=True, force_delete=True).done()
    assert len(bucket.all_keys("x/")) == 4


def test_an_empty_source_deletes_nothing(store, bucket, sync_at, src, dst):
    src.mkdir()
    bucket.put("x/a", "1")
    assert sync_at(store, f"{src}/", bucket.url("x/"), delete=True).code == 25
    assert bucket.all_keys() == {"x/a"}
    build(dst, {"keep": "1"})
    assert sync_at(store, bucket.url("none/"), f"{dst}/", delete=True).code in (1, 25)
    assert sync_at(store, store.bucket().url(), f"{dst}/", delete=True).code in (1, 25)
    assert keys(dst) == {"keep"}


def test_more_than_a_thousand_go_in_a_few_requests(versitygw, sync_at, proxied, src):
    bucket = versitygw.bucket()
    build(src, {f"d{n % 7}/{n}": "" for n in range(1100)})
    sync_at(versitygw, f"{src}/", bucket.url("x/")).done()
    assert len(bucket.all_keys()) == 1100
    build(src.parent / "less", {"keep": ""})
    server, proxy = proxied(versitygw)
    sync_at(server, f"{src.parent}/less/", bucket.url("x/"), delete=True, force_delete=True).done()
    assert bucket.all_keys() == {"x/keep"}
    assert proxy.count("DELETE", "DELETES") <= 9, proxy.counts


@pytest.mark.parametrize(("count", "asked"), [(2, "HEAD"), (9, "LIST")])
def test_what_changed_since_it_was_listed_is_not_deleted(versitygw, sync_at, proxied, src, count, asked):
    bucket = versitygw.bucket()
    build(src, {f"d/{n}": "old" for n in range(count)} | {"keep": ""})
    sync_at(versitygw, f"{src}/", bucket.url("x/")).done()
    for n in range(count):
        os.unlink(src / f"d/{n}")
    server, proxy = proxied(versitygw)
    # The first list is the one that finds what is to be deleted.
    proxy.fault(Do(lambda _: bucket.put("x/d/1", b"somebody's")), kind=[asked], nth=2 if asked == "LIST" else 1)
    outcome = sync_at(server, f"{src}/", bucket.url("x/"), delete=True, force_delete=True)
    assert outcome.code == 23
    assert [error["path"] for error in outcome.errors] == [bucket.url("x/d/1")]
    assert {key for key in bucket.objects("x/") if not key.endswith("/")} == {"keep", "d/1"}
    assert bucket.objects("x/")["d/1"] == b"somebody's"


def test_an_empty_directory_stays_where_the_source_has_one(store, bucket, sync_at, src, dst):
    build(src, {"d/a": "1", "e/": None, "b": "1"})
    sync_at(store, f"{src}/", bucket.url("x/")).done()
    os.unlink(src / "d/a")
    os.rmdir(src / "e")
    sync_at(store, f"{src}/", bucket.url("x/"), delete=True, force_delete=True).done()
    sync_at(store, bucket.url("x/"), f"{dst}/").done()
    assert keys(dst) == {"d", "b"}


# Foretelling.


@pytest.mark.parametrize("way", ["up", "down", "across"])
def test_a_dry_run_says_what_the_run_does_and_does_nothing(store, bucket, sync_at, proxied, src, dst, way):
    build(src, TREE)
    other = store.bucket()
    for place in (bucket, other):
        sync_at(store, f"{src}/", place.url("x/")).done()
    build(src, {"new": "1", "a.txt": "longer than before", "newdir/n": "2"})
    os.unlink(src / "run")
    sync_at(store, f"{src}/", other.url("x/"), delete=True).done()
    sync_at(store, bucket.url("x/"), f"{dst}/").done()
    source, dest = {
        "up": (f"{src}/", bucket.url("x/")),
        "down": (other.url("x/"), f"{dst}/"),
        "across": (other.url("x/"), bucket.url("x/")),
    }[way]
    server, proxy = proxied(store)
    before = snapshot(dst, untouched=True)
    foretold = sync_at(server, source, dest, delete=True, dry_run=True).done()
    assert proxy.writes == []
    assert snapshot(dst, untouched=True) == before
    did = sync_at(store, source, dest, delete=True).done()
    assert foretold.changes == did.changes
    assert {"new", "a.txt", "newdir/n", "run"} <= {key for key, _ in did.changes}
    same = (
        "files_created",
        "files_updated",
        "files_deleted",
        "files_scanned",
        "files_skipped",
        "dirs_created",
        "symlinks_created",
    )
    assert {name: foretold.stats[name] for name in same} == {name: did.stats[name] for name in same}


# Choosing.


@pytest.fixture
def choose(store, sync_at, src, dst):
    """Which files of a tree are taken, on the way up and on the way down."""
    build(
        src,
        {
            "a.py": "12345", "b.tmp": "1", "d/c.py": "123456789", "d/k.tmp": "", "skip/e.py": "1",
            "old": File("12345", mtime_ns=1_000_000_000 * 10**9),
        },
    )  # fmt: skip

    def choose(**options) -> set[str]:
        part, whole = store.bucket(), store.bucket()
        sync_at(store, f"{src}/", part.url(), **options).done()
        sync_at(store, f"{src}/", whole.url()).done()
        sync_at(store, whole.url(), f"{dst}/", **options).done()
        up = {key for key in part.all_keys() if not key.endswith("/")}
        down = {key for key, node in snapshot(dst).items() if node["kind"] == "file"}
        assert up == down
        return up

    return choose


def test_patterns_leave_out(choose):
    assert choose(exclude=["*.tmp", "/skip/"]) == {"a.py", "d/c.py", "old"}


def test_patterns_take_in(choose):
    assert choose(include=["*.py", "*/"], exclude=["*"]) == {"a.py", "d/c.py", "skip/e.py"}


def test_sizes_leave_out(choose):
    assert choose(min_size=1, max_size=5) == {"a.py", "b.tmp", "skip/e.py", "old"}


def test_ages_leave_out(choose):
    assert choose(min_age="9000d") == {"old"}


def test_ages_take_in(choose):
    assert choose(max_age="9000d") == {"a.py", "b.tmp", "d/c.py", "d/k.tmp", "skip/e.py"}


def test_what_is_left_out_is_not_deleted(store, bucket, sync_at, src):
    build(src, {"a": "1"})
    for key in ("x/keep.tmp", "x/d/keep.tmp", "x/d/go"):
        bucket.put(key, "1")
    sync_at(store, f"{src}/", bucket.url("x/"), delete=True, exclude=["*.tmp"]).done()
    assert bucket.all_keys() == {"x/a", "x/keep.tmp", "x/d/keep.tmp"}


@pytest.mark.parametrize("way", ["up", "down", "across"])
@pytest.mark.parametrize(
    ("options", "taken"),
    [
        ({}, "new longer source-newer dest-newer"),
        ({"update": True}, "new longer source-newer"),
        ({"existing": True}, "longer source-newer dest-newer"),
        ({"ignore_existing": True}, "new"),
        ({"size_only": True}, "new longer"),
        ({"checksum": True}, "new longer source-newer dest-newer planted"),
        ({"ignore_times": True}, "new longer source-newer dest-newer planted same"),
    ],
    ids=str,
)
def test_what_counts_as_equal(moto, sync_at, tmp_path, way, options, taken):
    def files(side: str, **times) -> dict:
        return {
            "same": File("equal"),
            "planted": File(f"of {side}"),
            "longer": File("of the source" if side == "src" else "old"),
            "source-newer": File(f"by {side}", mtime_ns=WHEN + (9 * 10**9 if side == "src" else 0)),
            "dest-newer": File(f"by {side}", mtime_ns=WHEN + (9 * 10**9 if side == "dst" else 0)),
        }

    names = {"src": moto.bucket().url("x/"), "dst": moto.bucket().url("x/")}
    for side in names:
        build(tmp_path / side, files(side) | ({"new": "1"} if side == "src" else {}))
        if (side == "src" and way in ("down", "across")) or (side == "dst" and way in ("up", "across")):
            sync_at(moto, f"{tmp_path / side}/", names[side]).done()
        else:
            names[side] = f"{tmp_path / side}/"
    sync_at(moto, names["src"], names["dst"], **options).done()
    back = tmp_path / "back"
    sync_at(moto, names["dst"], f"{back}/").done() if names["dst"].startswith("s3:") else os.rename(
        tmp_path / "dst", back
    )
    content = {key: node["content"] for key, node in snapshot(back).items() if node["kind"] == "file"}
    of_source = {key: node["content"] for key, node in snapshot(tmp_path / "src").items() if node["kind"] == "file"}
    assert {key for key in of_source if content.get(key) == of_source[key]} == {*taken.split(), "same"}


@pytest.mark.parametrize("way", ["up", "down", "across"])
def test_a_planted_difference_is_found_by_its_sum_and_by_nothing_else(store, bucket, sync_at, src, dst, way):
    build(src, {"a": "right", "b": "same"})
    sync_at(store, f"{src}/", bucket.url("x/")).done()
    other = store.bucket()
    sync_at(store, bucket.url("x/"), other.url("x/")).done()
    sync_at(store, bucket.url("x/"), f"{dst}/").done()
    if way == "down":
        rewrite(dst / "a", "wrong")
        source, dest, after = bucket.url("x/"), f"{dst}/", lambda: (dst / "a").read_bytes()
    else:
        there = bucket if way == "up" else other
        metadata = there.metadata("x/a")
        there.put("x/a", "wrong", metadata)
        source, dest, after = (
            (f"{src}/" if way == "up" else bucket.url("x/")),
            there.url("x/"),
            lambda: there.get("x/a"),
        )
    assert sync_at(store, source, dest).done().changes == set()
    assert after() == b"wrong"
    assert sync_at(store, source, dest, checksum=True).done().changes == {("a", "update")}
    assert after() == b"right"
    assert sync_at(store, source, dest, checksum=True).done().changes == set()


# Moving, keeping aside, links.


@pytest.mark.parametrize("way", ["up", "down", "across"])
def test_source_files_go_once_they_are_copied(store, bucket, sync_at, src, dst, way):
    other = store.bucket()
    build(src, {"a": "1", "d/b": "2", "left out": "3"})
    if way != "up":
        sync_at(store, f"{src}/", bucket.url("x/")).done()
    source = f"{src}/" if way == "up" else bucket.url("x/")
    dest = f"{dst}/" if way == "down" else other.url("y/")
    sync_at(store, source, dest, remove_source_files=True, exclude=["left*"]).done()
    left = keys(src) if way == "up" else bucket.all_keys("x/")
    assert left == ({"d", "left out"} if way == "up" else {"x/left out"})
    assert (keys(dst) if way == "down" else other.all_keys()) == (
        {"a", "d", "d/b"} if way == "down" else {"y/a", "y/d/b"}
    )


def test_what_is_replaced_or_deleted_is_kept_below_the_backup_dir(store, bucket, sync_at, src):
    build(src, {"a": "new content", "d/b": "same"})
    sync_at(store, f"{src}/", bucket.url("x/")).done()
    bucket.put("x/a", "old", {"mtime": "1.5"})
    bucket.put("x/d/gone", "gone")
    options = {"delete": True, "backup_dir": "old"}
    sync_at(store, f"{src}/", bucket.url("x/"), **options).done()
    kept = {key.split("/", 2)[2]: content for key, content in bucket.objects("x/").items() if key.startswith("old/")}
    assert kept == {"a": b"old", "d/gone": b"gone"}
    assert bucket.get("x/a") == b"new content" and "x/d/gone" not in bucket.all_keys()
    before = bucket.tags()
    assert sync_at(store, f"{src}/", bucket.url("x/"), **options).done().changes == set()
    assert bucket.tags() == before, "backups are spared"


def test_a_backup_dir_outside_of_the_destination_is_refused(store, bucket, sync_at, proxied, src):
    build(src, {"a": "1"})
    server, proxy = proxied(store)
    for place in ("/old", "../old", "a/../../b"):
        assert sync_at(server, f"{src}/", bucket.url("x/"), backup_dir=place).code == 1
    assert proxy.writes == []


def test_a_link_that_is_left_out_stays_where_it_is(store, bucket, sync_at, src, dst):
    build(src, {"a": "1", "link": Link("a")})
    sync_at(store, f"{src}/", bucket.url("x/")).done()
    for source, dest in ((bucket.url("x/"), f"{dst}/"), (bucket.url("x/"), bucket.url("y/"))):
        dry = sync_at(store, source, dest, links="skip", dry_run=True).done()
        assert dry.changes == {("a", "create")}
        assert sync_at(store, source, dest, links="skip").done().changes == dry.changes
    sync_at(store, bucket.url("x/"), f"{dst}/", links="skip", remove_source_files=True).done()
    assert bucket.all_keys() == {"x/link", "y/a"}
    assert keys(dst) == {"a"}


def test_links_are_kept_followed_or_left_out(store, bucket, sync_at, src, dst):
    build(src, {"a": "content", "link": Link("a"), "d/up": Link("../a")})
    sync_at(store, f"{src}/", bucket.url("kept/")).done()
    assert bucket.get("kept/link") == b"a" and int(bucket.metadata("kept/link")["mode"]) == 0o120777
    sync_at(store, f"{src}/", bucket.url("followed/"), links="follow").done()
    assert bucket.objects("followed/") == {"a": b"content", "link": b"content", "d/up": b"content"}
    sync_at(store, f"{src}/", bucket.url("left/"), links="skip").done()
    assert "left/link" not in bucket.all_keys() and "left/d/up" not in bucket.all_keys()
    sync_at(store, bucket.url("kept/"), f"{dst}/", links="skip").done()
    assert {key for key, node in snapshot(dst).items() if node["kind"] == "symlink"} == set()


def test_a_bucket_does_not_say_who_runs_as_somebody_else(store, bucket, sync_at, dst):
    bucket.put("x/a", "1", {"mtime": "1617196800.5", "mode": str(0o104755)})
    for source, at in (("x/", f"{dst}/"), ("x/a", f"{dst}/")):
        for _ in range(2):
            sync_at(store, bucket.url(source), at).done()
            assert (dst / "a").stat().st_mode & 0o7777 == 0o755


def test_a_link_that_is_replaced_is_kept_aside_and_only_if_it_is_what_was_listed(store, bucket, sync_at, proxied, src):
    build(src, {"l": Link("aa")})
    sync_at(store, f"{src}/", bucket.url()).done()
    os.unlink(src / "l")
    build(src, {"l": Link("zz")})
    sync_at(store, f"{src}/", bucket.url(), backup_dir="old").done()
    assert bucket.get("l") == b"zz"
    assert [content for key, content in bucket.objects().items() if key.startswith("old/")] == [b"aa"]
    os.unlink(src / "l")
    build(src, {"l": Link("yy")})
    server, proxy = proxied(store)
    proxy.fault(Do(lambda _: bucket.put("l", "of somebody else")), kind="PUT", times=1)
    outcome = sync_at(server, f"{src}/", bucket.url())
    assert outcome.code == 23 and [error["kind"] for error in outcome.errors] == ["conflict"]
    assert bucket.get("l") == b"of somebody else"


def test_what_changed_since_it_was_listed_is_not_removed_once_it_is_kept_aside(store, bucket, sync_at, proxied, src):
    build(src, {"a": "1"})
    for key in ("gone", "changed"):
        bucket.put(key, "old")
    server, proxy = proxied(store)
    proxy.fault(Do(lambda _: bucket.put("changed", "of somebody else")), kind="HEAD", key="changed", times=1)
    outcome = sync_at(server, f"{src}/", bucket.url(), delete=True, force_delete=True, backup_dir="old")
    assert outcome.code == 23 and [error["kind"] for error in outcome.errors] == ["conflict"]
    assert bucket.get("changed") == b"of somebody else" and "gone" not in bucket.all_keys()


def test_a_link_by_itself_is_copied_once(store, bucket, sync_at, src, dst):
    build(src, {"l": Link("a")})
    dst.mkdir()
    for source, dest in ((f"{src}/l", bucket.url()), (bucket.url("l"), f"{dst}/")):
        assert sync_at(store, source, dest).done().changes == {("l", "create")}
        assert sync_at(store, source, dest).done().changes == set()
    assert os.readlink(dst / "l") == "a"


def test_a_link_changes_its_target_and_becomes_a_file(store, bucket, sync_at, src, dst):
    build(src, {"l": Link("aa"), "m": Link("bb"), "f": "xx"})
    sync_at(store, f"{src}/", bucket.url()).done()
    sync_at(store, bucket.url(), f"{dst}/").done()
    for name in "lmf":
        os.unlink(src / name)
    build(src, {"l": Link("zz"), "m": "bb", "f": Link("xx")})
    sync_at(store, f"{src}/", bucket.url()).done()
    sync_at(store, bucket.url(), f"{dst}/").done()
    assert_same(src, dst)


def test_no_file_is_written_through_a_link_of_the_bucket(moto, sync_at, tmp_path, dst):
    bucket = moto.bucket()
    outside = tmp_path / "outside"
    outside.mkdir()
    bucket.put("d", str(outside), {"mode": str(0o120777), "mtime": "1"})
    bucket.put("d/file", "1")
    sync_at(moto, bucket.url(), f"{dst}/")
    sync_at(moto, bucket.url(), f"{dst}/")
    assert keys(outside) == set()


# What object stores can't keep.


def test_archive_keeps_what_can_be_kept(store, bucket, sync_at, src, dst):
    build(src, TREE)
    sync_at(store, f"{src}/", bucket.url("x/"), archive=True).done()
    sync_at(store, bucket.url("x/"), f"{dst}/", archive=True).done()
    assert_same(src, dst)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_the_owner_travels_when_asked_for(store, bucket, sync_at, src, dst):
    build(src, {"a": "1"})
    os.chown(src / "a", 1234, 5678)
    sync_at(store, f"{src}/", bucket.url(), preserve_owner=True).done()
    assert (bucket.metadata("a")["uid"], bucket.metadata("a")["gid"]) == ("1234", "5678")
    sync_at(store, bucket.url(), f"{dst}/", preserve_owner=True).done()
    assert snapshot(dst, owner=True)["a"]["owner"] == (1234, 5678)


UNSUPPORTED = [
    {"preserve_xattrs": True}, {"preserve_acls": True}, {"preserve_hardlinks": True}, {"preserve_devices": True},
    {"trash": True, "delete": True}, {"compress": True}, {"daemon_auto": True}, {"bidirectional": True},
]  # fmt: skip


@pytest.mark.parametrize("option", UNSUPPORTED, ids=str)
def test_an_option_that_a_store_cannot_honour_is_an_error_before_any_write(moto, sync_at, proxied, src, option):
    build(src, {"a": "1"})
    server, proxy = proxied(moto)
    outcome = sync_at(server, f"{src}/", moto.bucket().url(), **option)
    assert outcome.code == 1 and outcome.error["kind"] == "unsupported"
    assert next(iter(option)) in outcome.error["message"]
    assert proxy.writes == []


@pytest.mark.parametrize(
    "option",
    [
        {"preserve_xattrs": True},
        {"preserve_acls": True},
        {"preserve_hardlinks": True},
        {"preserve_devices": True},
        {"links": "follow"},
    ],
    ids=str,
)
def test_the_same_holds_for_a_store_as_the_source(moto, sync_at, proxied, dst, option):
    bucket = moto.bucket()
    bucket.put("a", "1")
    server, proxy = proxied(moto)
    outcome = sync_at(server, bucket.url(), f"{dst}/", **option)
    assert outcome.code == 1 and outcome.error["kind"] == "unsupported"
    assert next(iter(option)) in outcome.error["message"]
    assert not dst.exists()
    assert proxy.count("GET") == 0
