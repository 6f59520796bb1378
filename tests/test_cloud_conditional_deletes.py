"""What somebody else changed is not deleted, even in the last moment, where the service binds a deletion to a tag."""

import os

import pytest

from fault_proxy import Answer, Do
from trees import build, keys

THEIRS = "somebody else's, which is longer"


@pytest.fixture(params=["versitygw", "moto", "azurite"])
def binding(request):
    """Each server that knows conditions of deletions, where there are a few of them."""
    return request.getfixturevalue(request.param)


def put(server, sync_at, src, count: int, bucket, keep: str = "keep") -> None:
    """Files that the bucket has and the source has not any more."""
    build(src, {f"d/{n}": "old" for n in range(count)} | {keep: ""})
    sync_at(server, f"{src}/", bucket.url("x/")).done()
    for n in range(count):
        os.unlink(src / f"d/{n}")


def left(bucket) -> dict[str, bytes]:
    return {key: content for key, content in bucket.objects("x/").items() if not key.endswith("/")}


@pytest.mark.parametrize("count", [1, 3])
def test_what_changes_in_the_last_moment_is_not_deleted(binding, proxied, sync_at, src, count):
    bucket = binding.bucket()
    put(binding, sync_at, src, count, bucket)
    server, proxy = proxied(binding)
    proxy.fault(Do(lambda _: bucket.put("x/d/0", THEIRS)), kind="DELETE", key="x/d/0")
    outcome = sync_at(server, f"{src}/", bucket.url("x/"), delete=True, force_delete=True)
    assert outcome.code == 23
    assert [(error["kind"], error["path"]) for error in outcome.errors] == [("conflict", bucket.url("x/d/0"))]
    assert "nothing was deleted" in outcome.errors[0]["hint"]
    assert left(bucket) == {"keep": b"", "d/0": THEIRS.encode()}


def test_what_goes_in_the_last_moment_is_no_error(binding, proxied, sync_at, src):
    bucket = binding.bucket()
    put(binding, sync_at, src, 1, bucket)
    server, proxy = proxied(binding)
    proxy.fault(Do(lambda _: bucket.delete("x/d/0")), kind="DELETE", key="x/d/0")
    sync_at(server, f"{src}/", bucket.url("x/"), delete=True, force_delete=True).done()
    assert left(bucket) == {"keep": b""}


def test_a_source_that_changes_in_the_last_moment_is_not_removed(binding, proxied, sync_at, dst):
    bucket = binding.bucket()
    bucket.put("x/a", "1")
    bucket.put("x/b", "2")
    server, proxy = proxied(binding)
    proxy.fault(Do(lambda _: bucket.put("x/a", THEIRS)), kind="DELETE", key="x/a")
    outcome = sync_at(server, bucket.url("x/"), f"{dst}/", remove_source_files=True)
    assert outcome.code == 23
    assert [(error["kind"], error["path"]) for error in outcome.errors] == [("source_changed", bucket.url("x/a"))]
    assert left(bucket) == {"a": THEIRS.encode()}
    assert keys(dst) == {"a", "b"}


def test_a_file_that_gives_way_to_a_directory_is_bound_as_well(binding, proxied, sync_at, src):
    bucket = binding.bucket()
    bucket.put("x/d", "a file")
    build(src, {"d/a": "1"})
    server, proxy = proxied(binding)
    rule = proxy.fault(Do(lambda _: bucket.put("x/d", THEIRS)), kind="DELETE", key="x/d")
    outcome = sync_at(server, f"{src}/", bucket.url("x/"), delete=True, force_delete=True)
    assert rule.done == 1 and outcome.code == 23
    assert bucket.get("x/d") == THEIRS.encode()


def test_a_service_that_is_certain_to_bind_is_not_asked_before(azurite, proxied, sync_at, src):
    bucket = azurite.bucket()
    put(azurite, sync_at, src, 9, bucket)
    server, proxy = proxied(azurite)
    # The list afterwards looks whether the directory is still there.
    sync_at(server, f"{src}/", bucket.url("x/"), delete=True, force_delete=True, preserve_times=False).done()
    assert proxy.count("DELETE") == 9 and proxy.count("HEAD") == 0 and proxy.count("LIST") <= 2, proxy.counts
    assert left(bucket) == {"keep": b""}


def test_a_service_that_knows_no_conditions_still_deletes(versitygw, proxied, sync_at, src):
    bucket = versitygw.bucket()
    put(versitygw, sync_at, src, 2, bucket)
    server, proxy = proxied(versitygw)
    proxy.fault(Answer(501, "NotImplemented"), kind="DELETE", where=lambda request: "if-match" in request.headers)
    sync_at(server, f"{src}/", bucket.url("x/"), delete=True, force_delete=True).done()
    assert left(bucket) == {"keep": b""}


def test_a_service_that_refuses_tags_in_a_request_for_many_gets_one_without(versitygw, proxied, sync_at, src):
    bucket = versitygw.bucket()
    put(versitygw, sync_at, src, 9, bucket)
    server, proxy = proxied(versitygw)
    proxy.fault(Answer(400, "MalformedXML"), kind="DELETES", times=1)
    sync_at(server, f"{src}/", bucket.url("x/"), delete=True, force_delete=True).done()
    first, second = proxy.of("DELETES")
    assert first.length > second.length
    assert left(bucket) == {"keep": b""}


def test_what_a_request_for_many_says_to_have_changed_is_asked_about_once_more(versitygw, proxied, sync_at, src):
    bucket = versitygw.bucket()
    put(versitygw, sync_at, src, 4, bucket)
    server, proxy = proxied(versitygw)
    told = "".join(f"<Error><Key>x/d/{n}</Key><Code>PreconditionFailed</Code></Error>" for n in range(4))
    proxy.fault(Answer(200, body=f"<DeleteResult>{told}</DeleteResult>".encode()), kind="DELETES")
    proxy.fault(Do(lambda _: bucket.put("x/d/0", THEIRS)), kind="DELETE", key="x/d/0")
    outcome = sync_at(server, f"{src}/", bucket.url("x/"), delete=True, force_delete=True)
    assert [(error["kind"], error["path"]) for error in outcome.errors] == [("conflict", bucket.url("x/d/0"))]
    assert left(bucket) == {"keep": b"", "d/0": THEIRS.encode()}


def test_google_is_told_which_generation_is_meant(fake_gcs, proxied, sync_at, src):
    bucket = fake_gcs.bucket()
    put(fake_gcs, sync_at, src, 2, bucket)
    tags = {key: item["ETag"] for key, item in bucket.listed("x/d/").items()}
    server, proxy = proxied(fake_gcs)
    sync_at(server, f"{src}/", bucket.url("x/"), delete=True, force_delete=True).done()
    assert {request.key: request.query["ifGenerationMatch"] for request in proxy.of("DELETE")} == tags
