"""When the service, the network or the credentials fail: it ends, it says why, and nothing is lost."""

import dataclasses
import os
import re
import signal
import time

import pytest

from fault_proxy import Answer, Cut, Delay, Lost, Reset, Slow, Stall
from running import run, started, wait_until
from servers import free_port
from trees import build, keys, leftovers, snapshot

MIB = 1 << 20
SLOW_DOWN = Answer(503, "SlowDown")


@pytest.fixture
def bucket(versitygw):
    return versitygw.bucket()


def many(n: int) -> dict[str, str]:
    return {f"d{k % 9}/{k}": f"content {k}" for k in range(n)}


def arrived(bucket) -> dict[str, str]:
    return {key: content.decode() for key, content in bucket.objects().items()}


# What passes.


@pytest.mark.parametrize(
    "fault", [Answer(500, "InternalError"), SLOW_DOWN, Reset(), Lost()], ids=["500", "503", "reset", "lost"]
)
def test_now_and_then_a_failure_costs_nothing(versitygw, bucket, proxied, sync_at, src, dst, fault):
    build(src, many(120))
    server, proxy = proxied(versitygw)
    proxy.fault(fault, every=9)
    sync_at(server, f"{src}/", bucket.url()).done()
    assert arrived(bucket) == many(120)
    sync_at(server, bucket.url(), f"{dst}/").done()
    assert {key: node["content"].decode() for key, node in snapshot(dst).items() if node["kind"] == "file"} == many(120)
    assert proxy.count() > 240


@pytest.mark.parametrize("fault", [Cut(after=3), Reset(after=3)], ids=["cut", "reset"])
def test_a_body_that_breaks_off_is_fetched_again(versitygw, bucket, proxied, sync_at, dst, fault):
    for key, content in many(9).items():
        bucket.put(key, content)
    bucket.put("big", b"x" * (20 * MIB))
    server, proxy = proxied(versitygw)
    proxy.fault(fault, kind="GET", every=3)
    sync_at(server, bucket.url(), f"{dst}/").done()
    assert (dst / "big").read_bytes() == b"x" * (20 * MIB)
    assert {key: (dst / key).read_text() for key in many(9)} == many(9)


def test_an_upload_whose_connection_breaks_is_sent_again(parted, proxied, sync_at, src):
    bucket = parted.bucket()
    content = os.urandom(34 * MIB)
    build(src, {"big": content, "middle": content[: 3 * MIB], "small": "1"})
    server, proxy = proxied(parted)
    proxy.fault(Reset(after_sent=MIB), kind=["PUT", "PART"], times=2)
    sync_at(server, f"{src}/", bucket.url()).done()
    assert bucket.objects() == {"big": content, "middle": content[: 3 * MIB], "small": b"1"}
    assert bucket.uploads() == []


@pytest.mark.parametrize("kind", ["PUT", "BEGIN", "PART", "COMPLETE", "DELETE", "METADATA"])
def test_a_write_whose_answer_is_lost_is_not_taken_for_somebody_elses(parted, proxied, sync_at, src, kind):
    bucket = parted.bucket()
    if parted.name == "versitygw":
        kind = {"DELETE": "DELETES", "METADATA": "COPY"}.get(kind, kind)
    build(src, {"big": b"x" * (33 * MIB), "small": "1", "n": "2"})
    for n in range(4):
        bucket.put(f"gone {n}", "1")
    server, proxy = proxied(parted)
    rule = proxy.fault(Lost(), kind=kind, times=1)
    sync_at(server, f"{src}/", bucket.url(), delete=True, force_delete=True).done()
    if kind in ("COPY", "METADATA"):
        os.chmod(src / "small", 0o600)
        sync_at(server, f"{src}/", bucket.url()).done()
    assert rule.done == 1
    assert bucket.objects() == {"big": b"x" * (33 * MIB), "small": b"1", "n": b"2"}


def test_retry_after_is_honoured(versitygw, bucket, proxied, sync_at, src):
    build(src, {"a": "1"})
    server, proxy = proxied(versitygw)
    proxy.fault(Answer(503, "SlowDown", {"Retry-After": "2"}), kind="PUT", times=1)
    sync_at(server, f"{src}/", bucket.url()).done()
    first, second = proxy.of("PUT")
    assert second.at - first.at >= 1.9


# What does not.


@pytest.mark.parametrize("kind", ["PUT", "LIST"])
def test_a_storm_of_refusals_is_not_fed(versitygw, bucket, proxied, sync_at, src, kind):
    build(src, many(500))
    server, proxy = proxied(versitygw)
    proxy.fault(SLOW_DOWN, kind=kind)
    began = time.monotonic()
    outcome = sync_at(server, f"{src}/", bucket.url(), timeout=150)
    assert time.monotonic() - began < 120
    assert proxy.count() <= 400
    assert outcome.code in (1, 23)
    assert bucket.all_keys() == set()
    told = outcome.stderr + str(outcome.errors)
    assert "fewer requests" in told or "kept failing" in told


@pytest.mark.parametrize(
    "fault",
    [
        Answer(500, "InternalError"),
        Answer(403, "AccessDenied"),
        Answer(200, body=b"<ListBucketResult><Contents><Key>x/1</Key></Contents></ListBucketResult>"),
        Answer(200, body=b"<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>"),
        Answer(200, body=b"<html>sign in to the guest network</html>"),
        Answer(200, body=b""),
        Cut(after=2000),
    ],
    ids=["500", "403", "no end told", "no next page", "not XML", "empty", "cut"],
)
@pytest.mark.parametrize("side", ["source", "dest"])
def test_a_page_of_a_listing_that_fails_deletes_nothing(filled, proxied, sync_at, src, dst, fault, side):
    server, bucket = filled
    server, proxy = proxied(server)
    build(src, {"other": "1"})
    build(dst, {"mine": "1", "d/mine": "2"})
    before = bucket.tags()
    proxy.fault(fault, kind="LIST", where=lambda request: "continuation-token" in request.query)
    source, dest = (bucket.url("x/"), f"{dst}/") if side == "source" else (f"{src}/", bucket.url("x/"))
    outcome = sync_at(server, source, dest, delete=True, force_delete=True, max_errors=0)
    assert outcome.code != 0
    assert outcome.stats["files_deleted"] == 0
    assert bucket.tags().items() >= before.items()
    assert {"mine", "d/mine"} <= keys(dst)


@pytest.fixture(scope="module")
def filled(versitygw, tmp_path_factory):
    """A bucket with more than one page of keys; no test changes what is in it."""
    from conftest import find_sy

    src = build(tmp_path_factory.mktemp("filled") / "src", {f"{n:04}": "1" for n in range(1100)})
    bucket = versitygw.bucket()
    environment = os.environ | versitygw.env | {"XDG_STATE_HOME": str(src.parent / "state")}
    if find_sy() is None:
        pytest.skip("the native binary is not built")
    assert run([find_sy(), f"{src}/", bucket.url("x/")], env=environment, timeout=120).returncode == 0
    return versitygw, bucket


@pytest.mark.parametrize(
    ("fault", "kind", "words"),
    [
        (Answer(403, "AccessDenied"), "permission_denied", "what they may do"),
        (Answer(403, "InvalidAccessKeyId"), "authentication", "check key, secret"),
        (Answer(404, "NoSuchBucket"), "not_found", "check its name"),
        (Answer(301, "PermanentRedirect", {"x-amz-bucket-region": "eu-west-3"}), "config", "eu-west-3"),
        (Answer(400, "AuthorizationHeaderMalformed", body=b"<Error><Code>AuthorizationHeaderMalformed</Code><Region>eu-west-3</Region></Error>"), "config", "eu-west-3"),
    ],
    ids=["denied", "unknown key", "no bucket", "redirect", "region"],
)  # fmt: skip
@pytest.mark.parametrize("way", ["up", "down"])
def test_what_no_retry_can_mend_fails_at_once_and_says_what_to_do(
    versitygw, bucket, proxied, sync_at, src, dst, fault, kind, words, way
):
    build(src, many(20))
    server, proxy = proxied(versitygw)
    proxy.fault(fault)
    source, dest = (f"{src}/", bucket.url("x/")) if way == "up" else (bucket.url("x/"), f"{dst}/")
    outcome = sync_at(server, source, dest)
    assert outcome.code == 1 and outcome.error["kind"] == kind
    assert words in outcome.error["hint"]
    assert words in outcome.stderr, "people are told as well"
    assert proxy.count() == 1, proxy.counts


def test_a_real_bucket_that_is_not_there(s3, sync_at, src, dst):
    build(src, {"a": "1"})
    for source, dest in (
        (f"{src}/", "s3://no-such-bucket-here/x/"),
        ("s3://no-such-bucket-here/x/", f"{dst}/"),
        ("s3://no-such-bucket-here/x", f"{dst}/"),
    ):
        outcome = sync_at(s3, source, dest)
        assert outcome.code == 1 and outcome.error["kind"] == "not_found"
        assert not dst.exists()


def test_a_wrong_secret(versitygw, bucket, proxied, sync_at, src):
    build(src, {"a": "1"})
    server, proxy = proxied(versitygw)
    wrong = "this-is-not-the-secret"
    outcome = sync_at(server, f"{src}/", bucket.url(), env={"AWS_SECRET_ACCESS_KEY": wrong})
    assert outcome.code == 1 and outcome.error["kind"] == "authentication"
    assert proxy.count() == 1
    assert wrong not in outcome.stderr + str(outcome.events)


@pytest.mark.parametrize("value", [None, ""], ids=["unset", "empty"])
def test_no_credentials_at_all(versitygw, bucket, proxied, sync_at, src, value):
    build(src, {"a": "1"})
    server, proxy = proxied(versitygw)
    none = {"AWS_ACCESS_KEY_ID": value, "AWS_SECRET_ACCESS_KEY": value}
    outcome = sync_at(server, f"{src}/", bucket.url(), env=none)
    assert outcome.code == 1 and outcome.error["kind"] == "authentication"
    assert "access_key_id" in outcome.error["hint"]
    assert proxy.count() == 0


def test_a_token_that_has_expired(versitygw, bucket, proxied, sync_at, src):
    build(src, {"a": "1"})
    server, proxy = proxied(versitygw)
    proxy.fault(Answer(400, "ExpiredToken", message="The provided token has expired."))
    outcome = sync_at(server, f"{src}/", bucket.url(), env={"AWS_SESSION_TOKEN": "a-token-of-old"})
    assert outcome.code == 1 and outcome.error["kind"] == "authentication"
    assert "expired" in outcome.error["message"] and outcome.error["hint"]
    assert proxy.count() <= 4
    assert proxy.of()[0].headers["x-amz-security-token"] == "a-token-of-old"
    assert "a-token-of-old" not in outcome.stderr + str(outcome.events)


def test_a_clock_that_is_wrong_is_put_right(versitygw, bucket, proxied, sync_at, src):
    build(src, {"a": "1"})
    server, proxy = proxied(versitygw)
    skewed = Answer(403, "RequestTimeTooSkewed", {"Date": "Wed, 31 Mar 2021 13:20:00 GMT"})
    proxy.fault(skewed, kind="LIST", times=1)
    sync_at(server, f"{src}/", bucket.url())
    assert [request.headers["x-amz-date"][:8] for request in proxy.of("LIST")][1] == "20210331"


def test_a_clock_that_is_wrong_is_put_right_also_where_answers_have_no_body(versitygw, bucket, proxied, sync_at, src):
    build(src, {"a": "1"})
    bucket.put("a", "?")
    server, proxy = proxied(versitygw)
    skewed = Answer(403, "RequestTimeTooSkewed", {"Date": "Wed, 31 Mar 2021 13:20:00 GMT"})
    proxy.fault(skewed, kind=["HEAD", "GET"], times=2)
    sync_at(server, f"{src}/", bucket.url(), checksum=True)
    assert [request.headers["x-amz-date"][:8] for request in proxy.of("HEAD")][1] == "20210331"
    assert proxy.of("GET")[0].headers["range"] == "bytes=0-0"


def test_what_a_refusal_without_a_body_means_is_asked_only_once(versitygw, bucket, proxied, sync_at, src):
    build(src, {"a": "1"})
    bucket.put("a", "?")
    server, proxy = proxied(versitygw)
    proxy.fault(Answer(403, "AccessDenied", message="no reading here"), kind=["HEAD", "GET"])
    outcome = sync_at(server, f"{src}/", bucket.url(), checksum=True)
    assert outcome.code == 23 and [error["kind"] for error in outcome.errors] == ["permission_denied"]
    assert "no reading here" in outcome.errors[0]["message"]
    assert (proxy.count("HEAD"), proxy.count("GET")) == (1, 1)


def test_a_service_that_is_not_there(moto, sync_at, src):
    build(src, {"a": "1"})
    nobody = dataclasses.replace(moto, url=f"http://127.0.0.1:{free_port()}")
    outcome = sync_at(nobody, f"{src}/", "s3://bucket/x/", retry=0)
    assert outcome.code == 1 and outcome.error["kind"] == "network"
    assert "127.0.0.1" in outcome.error["message"]


def test_plain_http_is_refused_unless_it_is_allowed(versitygw, bucket, proxied, sync_at, src):
    build(src, {"a": "1"})
    server, proxy = proxied(versitygw)
    for value in ("", "false", "0"):
        outcome = sync_at(server, f"{src}/", bucket.url(), env={"AWS_ALLOW_HTTP": value})
        assert outcome.code == 1 and outcome.error["kind"] == "config"
        assert "allow" in outcome.error["hint"].lower()
    assert proxy.count() == 0


# Secrets.


@pytest.mark.parametrize(
    "status", [(403, "SignatureDoesNotMatch"), (400, "InvalidRequest"), (500, "InternalError")], ids=str
)
def test_no_secret_is_ever_printed(versitygw, bucket, proxied, src, command, status):
    build(src, {"a": "1"})
    server, proxy = proxied(versitygw)
    proxy.fault(Answer(*status))
    environment = os.environ | server.env | {"AWS_SESSION_TOKEN": "the-session-token"}
    for flags in (["-vvv"], ["--json", "-vvv"], ["--stats", "-P"]):
        done = run([*command, f"{src}/", bucket.url(), "--retry=0", *flags], env=environment, timeout=120)
        assert done.returncode == 1
        sent = proxy.of()[-1].headers
        signature = re.search("Signature=(.*)", sent["authorization"])[1]
        for secret in (server.secret_access_key, "the-session-token", signature, sent["authorization"]):
            assert secret not in done.stdout + done.stderr


def test_what_a_service_says_can_not_write_on_the_terminal(versitygw, bucket, proxied, src, sy_binary):
    build(src, {"a": "1"})
    server, proxy = proxied(versitygw)
    proxy.fault(Answer(403, "Acc\x1b[2Jess", message="\x1b]0;title\x07 &#27;[31m"))
    done = run([sy_binary, f"{src}/", bucket.url()], env=os.environ | server.env)
    assert "\x1b" not in done.stderr + done.stdout and "\x07" not in done.stderr


# Being stopped.


def interrupted(process) -> float:
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    process.wait(20)
    return time.monotonic() - began


@pytest.mark.parametrize("way", ["parts", "stream", "small"])
def test_ctrl_c_stops_an_upload_within_a_second_and_leaves_nothing(versitygw, bucket, proxied, sy_binary, src, way):
    size = {"parts": 80 * MIB, "stream": 20 * MIB, "small": 10}[way]
    build(src, {f"{n}": os.urandom(size) for n in range(200 if way == "small" else 1)})
    server, proxy = proxied(versitygw)
    proxy.fault(Delay(30) if way == "small" else Slow(MIB), kind=["PUT", "PART"])
    with started([sy_binary, f"{src}/", bucket.url()], env=os.environ | server.env) as process:
        wait_until(lambda: any(request.sent or way == "small" for request in proxy.of("PUT", "PART")), timeout=30)
        assert interrupted(process) < 1
        assert process.returncode == 130
    assert bucket.all_keys() == set()
    assert bucket.uploads() == []


@pytest.mark.parametrize("way", ["ranges", "whole", "listing"])
def test_ctrl_c_stops_a_download_within_a_second_and_leaves_nothing_in_place(
    versitygw, bucket, proxied, sy_binary, dst, way
):
    bucket.put("big", os.urandom(20 * MIB if way == "ranges" else 10 * MIB))
    server, proxy = proxied(versitygw)
    proxy.fault(Stall(seconds=30) if way == "listing" else Slow(MIB), kind="LIST" if way == "listing" else "GET")
    with started([sy_binary, bucket.url(), f"{dst}/"], env=os.environ | server.env) as process:
        wait_until(lambda: any(request.received or way == "listing" for request in proxy.of("GET", "LIST")), timeout=30)
        assert interrupted(process) < 1
        assert process.returncode == 130
    assert not dst.exists() or keys(dst) - set(leftovers(dst)) == set()
