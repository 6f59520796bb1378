"""Keys that no file system could have: a bucket may hold them, and no run may lose or misplace them."""

import pytest

from trees import build, keys, leftovers, snapshot

LONGEST = "k" * 1016
TEMPORARY = f"d/.sypy-part-{'0' * 32}"
ODD = [
    "dd//b", "dd//", "//", "/lead", "./dot", "../up", "d/./x", "d/../y", "d/..", "d/.", "a", "a/b", "a/b/c", "a-b", "a.b",
    "marker/", "marker with content/", "n/é", "ü", "日本/😀", "plus+ space", "percent%41%", "what?", "hash#tag", "quote\"'&<>",
    "back\\slash", "tab\there", "bell\x07", "esc\x1b[31m", "del\x7f", " lead", "trail ", "tilde~", "star*", LONGEST, TEMPORARY,
    "c:colon", "-dash", "$HOME", "nul\u0085next",
]  # fmt: skip
# What can stand in a file system, all in one tree.
POSSIBLE = [
    "a/b/c", "a-b", "a.b", "n/é", "ü", "日本/😀", "plus+ space", "percent%41%", "what?", "hash#tag", "quote\"'&<>", "back\\slash",
    "tab\there", "bell\x07", "esc\x1b[31m", "del\x7f", " lead", "trail ", "tilde~", "star*", "c:colon", "-dash", "$HOME", "nul\u0085next",
]  # fmt: skip


def content(key: str) -> bytes:
    return b"" if key == "marker/" else f"content of {key}".encode()


@pytest.fixture
def odd(moto):
    bucket = moto.bucket()
    for key in ODD:
        bucket.put(f"x/{key}", content(key))
    assert bucket.all_keys() == {f"x/{key}" for key in ODD}
    return bucket


def test_from_store_to_store_every_key_arrives_as_it_is(moto, odd, sync_at):
    to = moto.bucket()
    sync_at(moto, odd.url("x/"), to.url("y/")).done()
    assert to.objects("y/") == {key: content(key) for key in ODD}
    before = to.tags()
    assert sync_at(moto, odd.url("x/"), to.url("y/"), delete=True).done().changes == set()
    assert to.tags() == before


def test_every_odd_key_can_be_deleted(moto, odd, sync_at, src):
    build(src, {"keep": "1"})
    sync_at(moto, f"{src}/", odd.url("x/"), delete=True, force_delete=True).done()
    assert odd.all_keys() == {"x/keep"}


def test_to_a_file_system_what_it_can_hold_arrives_and_the_rest_is_named(moto, odd, sync_at, tmp_path):
    dst = tmp_path / "below" / "dst"
    build(tmp_path, {"below/up": "not to be touched", "below/y": "not to be touched"})
    for _ in range(2):
        outcome = sync_at(moto, odd.url("x/"), f"{dst}/")
        assert outcome.code == 23
        # `a` is a file here, or a directory: both can't be.
        beside = [key for key in POSSIBLE if not key.startswith("a/")]
        assert {key: (dst / key).read_bytes() for key in beside} == {key: content(key) for key in beside}
        assert (dst / "a").is_dir() or (dst / "a").read_bytes() == content("a")
        told = {error["path"].removeprefix(odd.url("x/")) for error in outcome.errors}
        for key in ("dd//b", "dd//", "//", "/lead", "marker with content/", LONGEST, TEMPORARY):
            assert any(path.endswith(key) for path in told), (key, told)
        # Of the ones with dots the directory is named.
        for key in (".", "..", "d/.", "d/.."):
            assert any(path.rstrip("/").endswith(key) for path in told), (key, told)
        assert (dst / "marker").is_dir()
        assert keys(tmp_path / "below") - {f"dst/{key}" for key in keys(dst)} == {"up", "y", "dst"}
        assert snapshot(tmp_path / "below")["up"]["content"] == b"not to be touched"
        assert leftovers(dst) == []


@pytest.mark.parametrize("there", [False, True])
def test_a_dry_run_names_what_a_file_system_can_not_hold(moto, odd, sync_at, dst, there):
    if there:
        dst.mkdir()
    dry = sync_at(moto, odd.url("x/"), f"{dst}/", dry_run=True)
    real = sync_at(moto, odd.url("x/"), f"{dst}/")
    assert (dry.code, dry.changes) == (23, real.changes)
    assert {error["path"] for error in dry.errors} == {error["path"] for error in real.errors}


def test_a_dry_run_names_what_a_store_can_not_hold(moto, sync_at, src):
    bucket = moto.bucket()
    build(src, {"good": "1", "/".join(["f" * 200] * 5) + "/" + "x" * 100: "2"})
    dry = sync_at(moto, f"{src}/", bucket.url(), dry_run=True)
    real = sync_at(moto, f"{src}/", bucket.url())
    assert ("good", "create") in dry.changes and dry.changes == real.changes
    assert (dry.code, [error["path"] for error in dry.errors]) == (23, [error["path"] for error in real.errors])


def test_nothing_that_failed_to_arrive_lets_anything_be_deleted_by_mistake(moto, sync_at, dst):
    bucket = moto.bucket()
    for key in ("a//b", "good"):
        bucket.put(key, key)
    build(dst, {"a/mine": "1", "good": "old"})
    outcome = sync_at(moto, bucket.url(), f"{dst}/", delete=True, force_delete=True)
    assert outcome.code == 23
    assert (dst / "good").read_text() == "good"


def test_a_file_and_a_directory_of_one_name(moto, sync_at, dst):
    bucket = moto.bucket()
    for key in ("a", "a-b", "a/b", "a.b", "a/c/d"):
        bucket.put(key, key)
    outcome = sync_at(moto, bucket.url(), f"{dst}/")
    assert outcome.code == 23
    assert {error["path"].removeprefix(bucket.url()).rstrip("/") for error in outcome.errors} <= {
        "a",
        "a/b",
        "a/c",
        "a/c/d",
    }
    assert (dst / "a-b").read_text() == "a-b" and (dst / "a.b").read_text() == "a.b"
    first = snapshot(dst)
    assert sync_at(moto, bucket.url(), f"{dst}/").code == 23
    assert snapshot(dst)["a"]["kind"] == first["a"]["kind"], "it does not swing to and fro"


def test_a_directorys_own_object_with_content_does_not_hide_what_is_below(moto, sync_at, src):
    bucket = moto.bucket()
    build(src, {"c/x": "1", "d": "2"})
    for key in ("c/", "c/x", "c/old"):
        bucket.put(key, "1")
    sync_at(moto, f"{src}/", bucket.url(), delete=True, force_delete=True).done()
    assert bucket.objects() == {"c/x": b"1", "d": b"2"}


def test_a_directorys_own_object_with_content_is_not_written_over(moto, sync_at, src):
    bucket = moto.bucket()
    bucket.put("c/", "content")
    (src / "c").mkdir(parents=True)
    sync_at(moto, f"{src}/", bucket.url()).done()
    assert bucket.objects() == {"c/": b"content"}


def test_a_key_that_is_too_long_fails_by_name_and_the_rest_goes(moto, sync_at, src):
    folder = "f" * 200
    build(src, {"good": "1", "/".join([folder] * 5) + "/" + "x" * 100: "2", "/".join([folder] * 5): None} | {})
    outcome = sync_at(moto, f"{src}/", moto.bucket().url())
    assert outcome.code == 23
    assert all("1,024" in error["message"] for error in outcome.errors) and outcome.errors


def test_a_key_of_the_greatest_length_goes_up_and_comes_back(moto, sync_at, src, dst):
    bucket = moto.bucket()
    key = "/".join(["f" * 200] * 5) + "/" + "x" * 19
    assert len(key) == 1024
    build(src, {key: "1"})
    sync_at(moto, f"{src}/", bucket.url()).done()
    assert bucket.all_keys() == {key}
    sync_at(moto, bucket.url(), f"{dst}/").done()
    assert snapshot(dst)[key]["content"] == b"1"


def test_names_of_many_kinds_go_up_and_come_back(moto, sync_at, src, dst):
    bucket = moto.bucket()
    build(src, {key: content(key) for key in POSSIBLE})
    sync_at(moto, f"{src}/", bucket.url("p/")).done()
    assert bucket.objects("p/") == {key: content(key) for key in POSSIBLE}
    sync_at(moto, bucket.url("p/"), f"{dst}/").done()
    assert {key: (dst / key).read_bytes() for key in POSSIBLE} == {key: content(key) for key in POSSIBLE}


def test_a_prefix_is_a_directory_not_the_beginning_of_a_name(moto, sync_at, src):
    bucket = moto.bucket()
    for key in ("p", "p-1", "p/old", "p0", "pp/x"):
        bucket.put(key, key)
    build(src, {"new": "1"})
    sync_at(moto, f"{src}/", bucket.url("p/"), delete=True, force_delete=True).done()
    assert bucket.all_keys() == {"p", "p-1", "p/new", "p0", "pp/x"}


def test_the_prefix_itself_may_be_odd(moto, sync_at, src, dst):
    bucket = moto.bucket()
    build(src, {"a": "1"})
    for prefix in ("a//b/", "ü %41+/", "../up/"):
        sync_at(moto, f"{src}/", bucket.url(prefix)).done()
        assert bucket.all_keys(prefix) == {f"{prefix}a"}
        sync_at(moto, bucket.url(prefix), f"{dst}/{len(prefix)}/").done()
        assert (dst / str(len(prefix)) / "a").read_text() == "1"
