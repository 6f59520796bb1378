"""How many requests a run costs: each is paid for, and waited for."""

import os
import time

import pytest

from trees import WHEN, File, build, rewrite

MANY = 1100
SECONDS = WHEN // 10**9
EXACT = f"{SECONDS}.{WHEN % 10**9:09}"


def listings(n: int) -> int:
    """What a run may cost that finds nothing to do."""
    return -(-n // 1000) + 2


def settle(store: bool = False) -> None:
    """What changed a moment before a run is not remembered: another change in the same tick of the clock would not show.
    That of a store ticks in seconds.
    """
    time.sleep(2.2 if store else 0.1)


@pytest.fixture(params=["up", "down", "across"])
def mirrored(request, versitygw, proxied, sync_at, src, dst):
    """Two places that are the same, a proxy between them, and how to run from one to the other."""
    build(src, {f"d{n % 13}/{n}": str(n) for n in range(MANY)})
    settle()
    bucket, other = versitygw.bucket(), versitygw.bucket()
    server, proxy = proxied(versitygw)
    source, dest = {
        "up": (f"{src}/", bucket.url("x/")),
        "down": (bucket.url("x/"), f"{dst}/"),
        "across": (bucket.url("x/"), other.url("x/")),
    }[request.param]
    if request.param != "up":
        sync_at(versitygw, f"{src}/", bucket.url("x/")).done()
        settle(store=True)

    def run(**options):
        proxy.forget()
        return sync_at(server, source, dest, **options).done()

    first = run()
    assert first.stats["files_created"] == MANY
    assert proxy.count() <= {"up": MANY + 4, "down": MANY + 4, "across": 2 * MANY + 8}[request.param], proxy.counts
    return request.param, run, proxy, bucket


def test_a_run_without_changes_costs_the_listing_and_one_with_few_the_transfers(
    mirrored, src, versitygw, sync_at, tmp_path
):
    way, run, proxy, bucket = mirrored
    most = listings(MANY) * (2 if way == "across" else 1)
    for options in ({}, {"delete": True}):
        assert run(**options).changes == set()
        assert set(proxy.counts) == {"LIST"} and proxy.count() <= most, proxy.counts
    # Without what was remembered each object is asked once, and remembered then.
    elsewhere = {"XDG_STATE_HOME": str(tmp_path / "state")}
    assert run(env=elsewhere).changes == set()
    asked = MANY * (2 if way == "across" else 1)
    assert proxy.count("HEAD") == asked and proxy.count() <= most + asked, proxy.counts
    assert run(env=elsewhere).changes == set()
    assert set(proxy.counts) == {"LIST"}, proxy.counts
    # One in a hundred changed.
    changed = [f"d{n % 13}/{n}" for n in range(0, MANY, 100)]
    for name in changed:
        rewrite(src / name, f"changed {name}", WHEN + 10**9)
    settle()
    if way != "up":
        sync_at(versitygw, f"{src}/", bucket.url("x/")).done()
        settle(store=True)
    assert len(run().changes) == len(changed)
    transfers = {"up": "PUT", "down": "GET", "across": "COPY"}[way]
    assert proxy.count(transfers) == len(changed)
    assert proxy.count() <= most + len(changed), proxy.counts
    assert run().changes == set()
    assert set(proxy.counts) == {"LIST"}, proxy.counts


def test_a_bucket_that_rclone_or_s3fs_filled_is_known(s3, proxied, sync_at, src, dst):
    bucket = s3.bucket()
    build(src, {"rclone": "1", "s3fs": "22", "old s3fs": File("333", mtime_ns=SECONDS * 10**9)})
    build(dst, {"rclone": "1", "s3fs": "22", "old s3fs": File("333", mtime_ns=SECONDS * 10**9)})
    bucket.put("rclone", "1", {"mtime": EXACT})
    owner = {"uid": str(os.getuid()), "gid": str(os.getgid())}
    bucket.put("s3fs", "22", {"mtime": EXACT, "mode": "33188", **owner})
    bucket.put("old s3fs", "333", {"mtime": str(SECONDS), "mode": "33188", **owner})
    settle(store=True)
    server, proxy = proxied(s3)
    for source, dest in ((f"{src}/", bucket.url()), (bucket.url(), f"{dst}/")):
        for asked in (3, 0):
            proxy.forget()
            assert sync_at(server, source, dest).done().changes == set()
            assert proxy.writes == [] and proxy.count("GET") == 0
            assert proxy.count("HEAD") == asked, proxy.counts


def test_a_bucket_without_metadata_is_known_by_its_sums(s3, proxied, sync_at, src, dst):
    bucket = s3.bucket()
    for root in (src, dst):
        build(root, {"a": "1", "d/b": "22"})
    for key, content in (("a", "1"), ("d/b", "22")):
        bucket.put(key, content)
    server, proxy = proxied(s3)
    assert sync_at(server, f"{src}/", bucket.url()).done().stats["bytes_transferred"] == 0
    assert proxy.count("PUT", "PART") == 0
    sync_at(server, f"{src}/", bucket.url()).done()
    proxy.forget()
    assert sync_at(server, f"{src}/", bucket.url()).done().changes == set()
    assert set(proxy.counts) == {"LIST"}
    proxy.forget()
    assert sync_at(server, bucket.url(), f"{dst}/").done().stats["bytes_transferred"] == 0
    assert proxy.count("GET") == 0


def test_a_difference_in_a_bucket_without_metadata_is_found(s3, sync_at, src):
    bucket = s3.bucket()
    build(src, {"a": "right", "b": "same"})
    bucket.put("a", "wrong")
    bucket.put("b", "same")
    assert ("a", "update") in sync_at(s3, f"{src}/", bucket.url()).done().changes
    assert bucket.objects() == {"a": b"right", "b": b"same"}


def test_only_metadata_changed_sends_no_content(s3, proxied, sync_at, src):
    bucket = s3.bucket()
    build(src, {"a": File("x" * 1000, mode=0o600)})
    sync_at(s3, f"{src}/", bucket.url()).done()
    os.chmod(src / "a", 0o755)
    server, proxy = proxied(s3)
    assert sync_at(server, f"{src}/", bucket.url()).done().changes == {("a", "metadata")}
    assert proxy.count("PUT") == 0 and proxy.count("COPY") == 1
    assert int(bucket.metadata("a")["mode"]) == 0o100755
    assert bucket.get("a") == b"x" * 1000


def test_new_metadata_leave_what_others_gave_an_object(s3, sync_at, src):
    bucket = s3.bucket()
    build(src, {"a": File("1", mode=0o644)})
    time = (src / "a").stat().st_mtime_ns
    mtime = f"{time // 10**9}.{time % 10**9:09}"
    bucket.put(
        "a",
        "1",
        {"mtime": mtime, "mode": str(0o100600), "mine": "too"},
        CacheControl="max-age=5",
        ContentEncoding="identity",
    )
    assert sync_at(s3, f"{src}/", bucket.url()).done().stats["files_metadata_updated"] == 1
    assert bucket.metadata("a") == {"mtime": mtime, "mode": str(0o100644), "mine": "too"}
    head = bucket.head("a")
    assert (head["CacheControl"], head["ContentEncoding"], head["ContentType"]) == (
        "max-age=5",
        "identity",
        "application/x-test",
    )


def test_no_more_connections_than_transfers_allow(versitygw, proxied, sync_at, src):
    build(src, {f"{n}": "x" for n in range(100)})
    server, proxy = proxied(versitygw)
    sync_at(server, f"{src}/", versitygw.bucket().url(), parallel=1).done()
    assert proxy.most_at_once <= 8
