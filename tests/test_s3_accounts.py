"""Whose bucket it is: explicit configs win over the environment, and two accounts in one process never mix."""

import os
import threading
import time

import pytest

import sypy
from fault_proxy import Answer, Stall
from trees import build, keys


def config(server, **client) -> "sypy.S3Config":
    options = sypy.CloudClientOptions(allow_http=True, **client)
    return sypy.S3Config(**server.config, client_options=options)


@pytest.fixture(scope="session")
def _configs_count() -> bool:
    """Does this build hand configs over?"""
    nobody = sypy.S3Config(
        endpoint="http://127.0.0.1:9", access_key_id="a", secret_access_key="b",
        client_options=sypy.CloudClientOptions(allow_http=True, max_retries=0),
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        patch.delenv("AWS_ALLOW_HTTP", raising=False)
        try:
            sypy.sync("s3://bucket/x/", "/nonexistent/nowhere", s3=nobody)
        except sypy.ConfigError:
            return False
        except sypy.SyncError:
            return True
    return True


@pytest.fixture(autouse=True)
def _need_configs(_configs_count):
    if not _configs_count:
        pytest.skip("this build does not hand S3Config over to a run yet")


@pytest.fixture
def misleading(monkeypatch):
    """An environment that leads elsewhere in every way it can."""
    variables = (
        "AWS_ENDPOINT_URL AWS_ENDPOINT_URL_S3 AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN AWS_REGION"
    )
    for name in variables.split():
        monkeypatch.setenv(name, "http://127.0.0.1:9" if "ENDPOINT" in name else "misleading")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "misleading")
    home = os.environ["AWS_CONFIG_FILE"]
    with open(home, "w") as file:
        file.write("[default]\nregion = elsewhere-1\nendpoint_url = http://127.0.0.1:9\n[profile other]\nregion = x\n")
    with open(os.environ["AWS_SHARED_CREDENTIALS_FILE"], "w") as file:
        file.write("[default]\naws_access_key_id = wrong\naws_secret_access_key = wrong\n")


def test_an_explicit_config_wins_over_every_variable_and_profile(s3, misleading, src, dst):
    bucket = s3.bucket()
    build(src, {"a": "1"})
    sypy.sync(f"{src}/", bucket.url(), s3=config(s3))
    assert bucket.objects() == {"a": b"1"}
    sypy.sync(bucket.url(), f"{dst}/", source_options=config(s3))
    assert keys(dst) == {"a"}


def test_no_secret_reaches_the_environment_or_a_text(versitygw, proxied, src):
    build(src, {"a": "1"})
    server, proxy = proxied(versitygw)
    proxy.fault(Answer(403, "SignatureDoesNotMatch"))
    given = config(server)
    before = dict(os.environ)
    with pytest.raises(sypy.AuthenticationError) as error:
        sypy.sync(f"{src}/", "s3://bucket/", s3=given)
    with open("/proc/self/environ", "rb") as environ:
        texts = [
            repr(given),
            str(given),
            str(error.value),
            repr(error.value),
            str(vars(error.value)),
            str(environ.read()),
        ]
    for text in texts:
        assert server.secret_access_key not in text
    assert dict(os.environ) == before


def test_from_one_server_to_another(moto, versitygw, proxied, src, dst):
    build(src, {"a": "1", "d/b": os.urandom(3 << 20), "big": os.urandom(33 << 20), "zero": "", "e/": None})
    first, second = moto.bucket(), versitygw.bucket()
    sypy.sync(f"{src}/", first.url("x/"), s3=config(moto))
    # What was put within the last seconds is looked at again.
    time.sleep(2.2)
    server, proxy = proxied(versitygw)
    sypy.sync(first.url("x/"), second.url("y/"), source_options=config(moto), dest_options=config(server))
    assert second.objects("y/") == first.objects("x/")
    assert {key: second.metadata(f"y/{key}") for key in second.objects("y/")} == {
        key: first.metadata(f"x/{key}") for key in first.objects("x/")
    }
    assert proxy.count("COPY") == 0
    proxy.forget()
    stats = sypy.sync(first.url("x/"), second.url("y/"), source_options=config(moto), dest_options=config(server))
    assert stats.files_created == stats.files_updated == 0
    assert set(proxy.counts) == {"LIST"}
    back = sypy.sync(second.url("y/"), first.url("z/"), source_options=config(versitygw), dest_options=config(moto))
    assert back.success and first.objects("z/") == first.objects("x/")


def test_two_accounts_at_a_time_never_mix(moto, versitygw, tmp_path):
    place = {server.name: (server, server.bucket()) for server in (moto, versitygw)}
    failed: list = []

    def work(name: str, n: int) -> None:
        server, bucket = place[name]
        try:
            build(tmp_path / f"{name}{n}", {f"{k}": f"of {name} {n} {k}" for k in range(20)})
            sypy.sync(f"{tmp_path}/{name}{n}/", bucket.url(f"{n}/"), s3=config(server))
            sypy.sync(bucket.url(f"{n}/"), f"{tmp_path}/{name}{n}-back/", s3=config(server))
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(name, n)) for n in range(4) for name in place]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    for name, (_, bucket) in place.items():
        assert bucket.objects() == {f"{n}/{k}": f"of {name} {n} {k}".encode() for n in range(4) for k in range(20)}
        for n in range(4):
            for k in range(20):
                assert (tmp_path / f"{name}{n}-back" / str(k)).read_text() == f"of {name} {n} {k}"


def test_an_answer_that_never_comes_is_waited_for_no_longer_than_said(versitygw, proxied, src, dst):
    bucket = versitygw.bucket()
    build(src, {f"{n}": f"{n}" * 100 for n in range(20)})
    server, proxy = proxied(versitygw)
    patient = config(server, request_timeout_secs=1)
    proxy.fault(Stall(), kind="PUT", times=2)
    sypy.sync(f"{src}/", bucket.url(), s3=patient)
    assert len(bucket.all_keys()) == 20
    proxy.fault(Stall(after=10), kind="GET", times=2)
    sypy.sync(bucket.url(), f"{dst}/", s3=patient)
    assert {key: (dst / key).read_text() for key in keys(dst)} == {f"{n}": f"{n}" * 100 for n in range(20)}


def test_one_client_for_one_side_leaves_the_other_to_the_environment(moto, versitygw, monkeypatch):
    first, second = moto.bucket(), versitygw.bucket()
    first.put("a", "1")
    for name, value in moto.env.items():
        monkeypatch.setenv(name, value)
    sypy.sync(first.url(), second.url(), dest_options=config(versitygw))
    assert second.objects() == {"a": b"1"}


def test_a_token_that_ends_where_answers_have_no_body_is_renewed(moto, proxied, src):
    """An answer to HEAD can't say that it is the token's age that is wrong."""
    bucket = moto.bucket()
    build(src, {"a": "1", "b": "2"})
    for key in "ab":
        bucket.put(key, "?")
    server, proxy = proxied(moto)
    given = []

    def give() -> dict[str, str]:
        given.append(f"token-{len(given)}")
        return {
            "access_key_id": moto.access_key_id,
            "secret_access_key": moto.secret_access_key,
            "session_token": given[-1],
        }

    def is_old(request) -> bool:
        return request.headers.get("x-amz-security-token") == "token-0"

    proxy.fault(Answer(400, "ExpiredToken"), kind=["HEAD", "GET"], where=is_old)
    options = sypy.CloudClientOptions(allow_http=True)
    config = sypy.S3Config(credentials=give, endpoint=server.url, region="us-east-1", client_options=options)
    stats = sypy.sync(f"{src}/", bucket.url(), s3=config, checksum=True)
    assert stats.success and stats.files_updated == 2
    assert 2 <= len(given) <= 3, "once for each of those that were under way"
    asked = [request for request in proxy.of("GET") if request.headers.get("range") == "bytes=0-0"]
    assert 1 <= len(asked) <= 2
