"""Large objects: a run that was killed is gone on with, and no upload is left behind."""

import os

import pytest

from fault_proxy import Answer, Delay
from running import started, wait_until
from trees import WHEN, build, keys, leftovers, rewrite

MIB = 1 << 20
FIRST = ("1", "2")


@pytest.fixture
def bucket(parted):
    return parted.bucket()


@pytest.fixture
def killed_upload(parted, bucket, proxied, sy_binary, src):
    """An upload of five parts of which two had arrived when the process was killed."""
    content = os.urandom(64 * MIB + 1)
    build(src, {"big": content})
    server, proxy = proxied(parted)
    proxy.fault(Delay(600), kind="PART", where=lambda request: request.query["partNumber"] not in FIRST)
    with started([sy_binary, f"{src}/", bucket.url()], env=os.environ | server.env) as process:
        wait_until(lambda: [request.status for request in proxy.of("PART")].count(200) == 2, timeout=60)
        process.kill()
        process.wait()
    assert bucket.all_keys() == set() and bucket.uploads() == ["big"]
    proxy.heal()
    proxy.forget()
    return server, proxy, content


def test_a_run_for_one_file_leaves_the_uploads_of_others_alone(killed_upload, bucket, sync_at, tmp_path):
    server, _, _ = killed_upload
    build(tmp_path / "one", {"other": "1"})
    sync_at(server, f"{tmp_path}/one/other", bucket.url("other")).done()
    assert bucket.uploads() == ["big"]


def test_an_upload_that_was_begun_with_other_metadata_is_not_gone_on_with(killed_upload, bucket, sync_at, src):
    server, proxy, content = killed_upload
    sync_at(server, f"{src}/", bucket.url(), preserve_times=False).done()
    assert bucket.objects() == {"big": content} and "mtime" not in bucket.metadata("big")
    assert proxy.count("BEGIN") == 1 and bucket.uploads() == []


def test_a_killed_upload_is_gone_on_with(killed_upload, bucket, sync_at, src):
    server, proxy, content = killed_upload
    sync_at(server, f"{src}/", bucket.url()).done()
    assert sorted(request.query["partNumber"] for request in proxy.of("PART")) == ["3", "4", "5"]
    assert proxy.count("BEGIN") == 0
    assert bucket.get("big") == content
    assert bucket.uploads() == []


@pytest.mark.parametrize("how", ["changed", "gone", "small"])
def test_an_upload_that_nobody_goes_on_with_is_given_up_by_the_next_run(killed_upload, bucket, sync_at, src, how):
    server, proxy, content = killed_upload
    build(src, {"other": "1"})
    if how == "changed":
        rewrite(src / "big", content[::-1], WHEN + 1)
    elif how == "small":
        rewrite(src / "big", "small", WHEN + 1)
    else:
        os.unlink(src / "big")
    sync_at(server, f"{src}/", bucket.url()).done()
    assert bucket.uploads() == []
    expected = {"changed": {"big": content[::-1]}, "small": {"big": b"small"}, "gone": {}}[how]
    assert bucket.objects() == {"other": b"1", **expected}
    if how == "changed":
        assert proxy.count("PART") == 5, "not a part of the old content is used"


def test_without_resume_nothing_is_used_again(killed_upload, bucket, sync_at, src):
    server, proxy, content = killed_upload
    sync_at(server, f"{src}/", bucket.url(), resume=False).done()
    assert proxy.count("PART") == 5
    assert bucket.get("big") == content
    assert bucket.uploads() == []


def test_a_dry_run_leaves_a_killed_upload_alone(killed_upload, bucket, sync_at, src):
    server, proxy, _ = killed_upload
    sync_at(server, f"{src}/", bucket.url(), dry_run=True).done()
    assert proxy.writes == []
    assert bucket.uploads() == ["big"]


def test_uploads_of_others_are_left_alone(parted, bucket, sync_at, src):
    build(src, {"big": os.urandom(33 * MIB)})
    bucket.begin_upload("theirs")
    sync_at(parted, f"{src}/", bucket.url()).done()
    assert bucket.uploads() == ["theirs"]


def test_an_upload_that_the_service_no_longer_knows_is_begun_anew(killed_upload, bucket, sync_at, src):
    server, _, content = killed_upload
    bucket.abort_uploads()
    sync_at(server, f"{src}/", bucket.url()).done()
    assert bucket.get("big") == content
    assert bucket.uploads() == []


def test_an_upload_that_fails_for_good_leaves_no_parts(parted, bucket, proxied, sync_at, src):
    build(src, {"big": os.urandom(33 * MIB), "small": "1"})
    server, proxy = proxied(parted)
    proxy.fault(Answer(403, "AccessDenied"), kind="PART", where=lambda request: request.query["partNumber"] == "2")
    outcome = sync_at(server, f"{src}/", bucket.url())
    assert outcome.code == 23 and [error["kind"] for error in outcome.errors] == ["permission_denied"]
    assert bucket.objects() == {"small": b"1"}
    assert bucket.uploads() == []


def test_a_killed_download_is_gone_on_with(parted, bucket, proxied, sy_binary, sync_at, src, dst):
    content = os.urandom(40 * MIB)
    build(src, {"big": content})
    sync_at(parted, f"{src}/", bucket.url()).done()
    server, proxy = proxied(parted)
    first = ("bytes=0-8388607", "bytes=8388608-16777215")
    proxy.fault(Delay(600), kind="GET", where=lambda request: request.headers.get("range") not in first)

    def noted() -> int:
        """Bytes of the part that are there, and ranges that it says are."""
        for name in leftovers(dst) if dst.exists() else []:
            with open(dst / name, "rb") as part:
                part.seek(40 * MIB + 32)
                return int.from_bytes(part.read(1), "little")
        return 0

    with started([sy_binary, bucket.url(), f"{dst}/"], env=os.environ | server.env) as process:
        wait_until(lambda: noted() == 0b11, timeout=60)
        process.kill()
        process.wait()
    assert not (dst / "big").exists()
    proxy.heal()
    proxy.forget()
    sync_at(server, bucket.url(), f"{dst}/").done()
    fetched = {request.headers.get("range") for request in proxy.of("GET")}
    assert len(fetched) == 3 and not fetched & {*first, None}
    assert (dst / "big").read_bytes() == content
    assert leftovers(dst) == []


def test_what_was_fetched_of_another_content_is_not_used(parted, bucket, proxied, sy_binary, sync_at, dst):
    old, new = os.urandom(24 * MIB), os.urandom(24 * MIB)
    bucket.put("big", old)
    server, proxy = proxied(parted)
    proxy.fault(Delay(600), kind="GET", where=lambda request: request.headers.get("range") != "bytes=0-8388607")
    with started([sy_binary, bucket.url(), f"{dst}/"], env=os.environ | server.env) as process:
        wait_until(lambda: any(request.received == 8 * MIB for request in proxy.of("GET")), timeout=60)
        process.kill()
        process.wait()
    bucket.put("big", new)
    proxy.heal()
    sync_at(server, bucket.url(), f"{dst}/").done()
    assert (dst / "big").read_bytes() == new
    assert keys(dst) == {"big"}


@pytest.mark.parametrize("way", ["up", "down"])
def test_what_was_not_whole_is_never_seen(parted, bucket, proxied, sy_binary, src, dst, way):
    old, new = os.urandom(33 * MIB), os.urandom(33 * MIB)
    build(src, {"big": new})
    build(dst, {"big": old})
    bucket.put("big", old if way == "up" else new)
    server, proxy = proxied(parted)
    proxy.fault(Delay(600), kind=["PART", "GET"], nth=2)
    source, dest = (f"{src}/", bucket.url()) if way == "up" else (bucket.url(), f"{dst}/")
    with started([sy_binary, source, dest], env=os.environ | server.env) as process:
        wait_until(lambda: proxy.count("PART", "GET") >= 2, timeout=60)
        process.kill()
        process.wait()
    assert (bucket.get("big") if way == "up" else (dst / "big").read_bytes()) == old
