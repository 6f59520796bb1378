"""Small things about buckets that are easily wrong."""

import os

import pytest

from fault_proxy import Answer
from trees import build, keys


@pytest.fixture
def bucket(store):
    return store.bucket()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_an_owner_without_a_group_leaves_the_group_as_it_is(moto, sync_at, dst):
    bucket = moto.bucket()
    bucket.put("user", "1", {"uid": "1234"})
    bucket.put("group", "1", {"gid": "4321"})
    os.mkdir(dst)
    os.chown(dst, 0, 77)
    os.chmod(dst, 0o2755)
    outcome = sync_at(moto, bucket.url(), f"{dst}/", preserve_owner=True, preserve_permissions=False).done()
    assert outcome.stats["files_created"] == 2
    owners = {name: ((dst / name).stat().st_uid, (dst / name).stat().st_gid) for name in ("user", "group")}
    assert owners == {"user": (1234, 77), "group": (0, 4321)}
    assert (
        sync_at(moto, bucket.url(), f"{dst}/", preserve_owner=True, preserve_permissions=False).done().changes == set()
    )


def test_an_object_that_stands_for_the_source_itself_and_has_content_is_told_of(store, bucket, sync_at, dst):
    if store.name == "versitygw":
        pytest.skip("has no such objects")
    bucket.put("p/", "content")
    bucket.put("p/a", "1")
    outcome = sync_at(store, bucket.url("p/"), f"{dst}/").done()
    assert keys(dst) == {"a"}
    assert outcome.stats["files_skipped"] == 1
    said = outcome.stderr + str(outcome.events)
    assert f"left out {bucket.url('p/')}" in said and "7 bytes of content" in said
    bucket.put("p/", "")
    outcome = sync_at(store, bucket.url("p/"), f"{dst}/").done()
    assert "left out" not in outcome.stderr + str(outcome.events)


@pytest.mark.parametrize("preserve_times", [True, False])
def test_a_directory_that_deletions_emptied_stays(store, bucket, sync_at, src, preserve_times):
    build(src, {"d/a": "1", "b": "1"})
    sync_at(store, f"{src}/", bucket.url("x/"), preserve_times=preserve_times).done()
    os.unlink(src / "d/a")
    sync_at(store, f"{src}/", bucket.url("x/"), delete=True, force_delete=True, preserve_times=preserve_times).done()
    assert bucket.all_keys() == {"x/d/", "x/b"}


@pytest.mark.parametrize("command", ["sync", "ls"])
def test_a_listing_that_goes_round_in_circles_ends(moto, proxied, sync_at, run_sypy, dst, command):
    bucket = moto.bucket()
    server, proxy = proxied(moto)
    page = "<ListBucketResult><IsTruncated>true</IsTruncated><NextContinuationToken>{}</NextContinuationToken>"
    for here, next_one in ((None, "a"), ("a", "b"), ("b", "a")):
        body = page.format(next_one) + "</ListBucketResult>"
        proxy.fault(
            Answer(200, body=body.encode()),
            kind="LIST",
            where=lambda request, here=here: request.query.get("continuation-token") == here,
        )
    if command == "sync":
        outcome = sync_at(server, bucket.url("x/"), f"{dst}/", timeout=30)
        assert outcome.code == 1 and "again and again" in outcome.error["message"]
    else:
        done = run_sypy("ls", "-r", bucket.url("x/"), env=os.environ | server.env, timeout=30)
        assert done.returncode != 0 and "again and again" in done.stderr
    assert proxy.count() < 20


def test_two_tokens_of_google_are_two_accounts(fake_gcs, proxied, src):
    """What one may read the other may not: nothing is copied in the name of the other."""
    import sypy

    bucket, other = fake_gcs.bucket(), fake_gcs.bucket()
    bucket.put("a", "1")
    server, proxy = proxied(fake_gcs)
    client = sypy.CloudClientOptions(allow_http=True)

    def config(token: str) -> "sypy.GcsConfig":
        return sypy.GcsConfig(token=token, endpoint=server.url, client_options=client)

    for tokens, copies in ((("one", "two"), 0), (("one", "one"), 1)):
        proxy.forget()
        source, dest = (config(token) for token in tokens)
        sypy.sync(bucket.url(), other.url(f"{tokens[1]}/"), source_options=source, dest_options=dest).raise_for_errors()
        assert proxy.count("COPY") == copies, proxy.counts
    assert other.objects() == {"two/a": b"1", "one/a": b"1"}
