"""Objects that other programs made from parts: the store has a sum of the parts' sums, and the content is checked by it."""

import random

import pytest

from fault_proxy import Answer, Corrupt
from trees import build, leftovers, rewrite

MIB = 1 << 20
EVEN = [6, 6, 5]
ODD = [5, 7, 6, 1]
SMALL = [5, 5, 1]


def noise(*mib: int) -> list[bytes]:
    return [random.Random(n).randbytes(size * MIB) for n, size in enumerate(mib)]


def unknown_parts(proxy):
    """As at a service that has no such request."""
    proxy.fault(Answer(400, "InvalidArgument"), kind="HEAD", where=lambda request: "partNumber" in request.query)


@pytest.fixture
def bucket(s3):
    return s3.bucket()


@pytest.mark.parametrize("algorithm", ["CRC32", "SHA1", "SHA256", None])
@pytest.mark.parametrize("sizes", [EVEN, ODD, SMALL], ids=["even", "odd", "small"])
def test_what_others_made_from_parts_is_checked_as_it_arrives(s3, bucket, sync_at, dst, algorithm, sizes):
    parts = noise(*sizes)
    bucket.put_parts("big", parts, algorithm)
    outcome = sync_at(s3, bucket.url(), f"{dst}/", verify=True).done()
    assert (dst / "big").read_bytes() == b"".join(parts)
    assert outcome.stats["files_verified"] == 1 and outcome.stats["verification_failures"] == 0


@pytest.mark.parametrize(("algorithm", "server"), [("SHA256", "versitygw"), ("CRC32", "versitygw"), (None, "moto")])
@pytest.mark.parametrize("sizes", [EVEN, ODD, SMALL], ids=["even", "odd", "small"])
@pytest.mark.parametrize("times", [1, None], ids=["once", "always"])
def test_what_was_spoiled_on_its_way_is_fetched_again_and_never_kept(
    request, proxied, sync_at, dst, algorithm, server, sizes, times
):
    s3 = request.getfixturevalue(server)
    bucket, parts = s3.bucket(), noise(*sizes)
    bucket.put_parts("big", parts, algorithm)
    build(dst, {"big": "the old one"})
    server, proxy = proxied(s3)
    proxy.fault(Corrupt(at=4 * MIB), kind="GET", times=times)
    outcome = sync_at(server, bucket.url(), f"{dst}/", retry=1, retry_delay=0)
    if times:
        outcome.done()
        assert (dst / "big").read_bytes() == b"".join(parts)
    else:
        assert outcome.code == 23
        assert [(error["kind"], error["path"]) for error in outcome.errors] == [("verification", bucket.url("big"))]
        assert (dst / "big").read_text() == "the old one"
    assert leftovers(dst) == []


@pytest.mark.parametrize("sizes", [[8, 8, 4], [5, 5, 5, 2], [5, 5, 1]], ids=str)
def test_where_parts_are_not_told_a_customary_size_proves_itself(moto, proxied, sync_at, dst, sizes):
    bucket, parts = moto.bucket(), noise(*sizes)
    bucket.put_parts("big", parts)
    server, proxy = proxied(moto)
    unknown_parts(proxy)
    assert sync_at(server, bucket.url(), f"{dst}/", verify=True).done().stats["files_verified"] == 1
    assert (dst / "big").read_bytes() == b"".join(parts)


def test_what_nobody_can_check_arrives_all_the_same(moto, proxied, sync_at, dst):
    bucket, parts = moto.bucket(), noise(*ODD)
    bucket.put_parts("big", parts)
    server, proxy = proxied(moto)
    unknown_parts(proxy)
    assert sync_at(server, bucket.url(), f"{dst}/").done().stats["verification_failures"] == 0
    assert (dst / "big").read_bytes() == b"".join(parts)
    rewrite(dst / "big", "other")
    outcome = sync_at(server, bucket.url(), f"{dst}/", verify=True)
    assert outcome.code == 23 and "no check sum" in outcome.errors[0]["message"]


def test_one_question_tells_of_all_parts(moto, proxied, sync_at, dst):
    bucket = moto.bucket()
    bucket.put_parts("big", noise(*EVEN))
    server, proxy = proxied(moto)
    sync_at(server, bucket.url(), f"{dst}/").done()
    assert len([request for request in proxy.of("HEAD") if "partNumber" in request.query]) == 1


def test_a_sum_of_the_whole_needs_no_question(moto, proxied, sync_at, src, dst):
    build(src, {"big": noise(33)[0], "small": "1"})
    bucket = moto.bucket()
    sync_at(moto, f"{src}/big", bucket.url()).done()
    bucket.put("small", "1")
    server, proxy = proxied(moto)
    sync_at(server, bucket.url("small"), f"{dst}/small").done()
    assert not [request for request in proxy.of("HEAD") if "partNumber" in request.query]


@pytest.mark.parametrize("way", ["up", "down"])
def test_contents_are_compared_by_the_sums_of_parts(moto, proxied, sync_at, src, way):
    bucket, parts = moto.bucket(), noise(*EVEN)
    build(src, {"same": b"".join(parts), "other": b"".join(reversed(parts))})
    bucket.put_parts("same", parts)
    bucket.put_parts("other", parts)
    server, proxy = proxied(moto)
    source, dest = (f"{src}/", bucket.url()) if way == "up" else (bucket.url(), f"{src}/")
    outcome = sync_at(server, source, dest, checksum=True, preserve_times=False).done()
    assert outcome.changes == {("other", "update")}
    assert {request.key for request in proxy.of("GET", "PUT", "PART")} == {"other"}
