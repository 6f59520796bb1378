"""HTTPS: certificates of one's own, and what is said when one is not to be trusted."""

import datetime
import os
import time

import pytest

import sypy
from tls import Authority
from trees import build

# The environment of `servers` allows plain HTTP.
STRICT = {"AWS_ALLOW_HTTP": None, "AZURE_ALLOW_HTTP": None}


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path)


@pytest.fixture
def safe(proxied, authority):
    """A server behind HTTPS: `server, proxy = safe(versitygw, host="localhost")`."""
    return lambda server, **certificate: proxied(server, tls=authority.server(**certificate))


def config(server, **client) -> "sypy.S3Config":
    return sypy.S3Config(**server.config, client_options=sypy.CloudClientOptions(**client))


@pytest.mark.parametrize("name", ["versitygw", "azurite", "gcs"])
def test_an_authority_that_is_named_is_trusted(request, safe, authority, sync_at, src, dst, name):
    server = request.getfixturevalue(name)
    bucket, (server, proxy) = server.bucket(), safe(server)
    content = {"a": b"1", "big": os.urandom(20 << 20)}
    build(src, content)
    sync_at(server, f"{src}/", bucket.url(), ca_bundle=authority.bundle, env=STRICT).done()
    assert bucket.objects() == content
    sync_at(server, bucket.url(), f"{dst}/", ca_bundle=authority.bundle, env=STRICT).done()
    assert {key: (dst / key).read_bytes() for key in content} == content
    assert proxy.count("LIST") >= 2


def test_an_authority_of_the_systems_is_trusted(versitygw, safe, authority, sync_at, src):
    bucket, (server, _) = versitygw.bucket(), safe(versitygw)
    build(src, {"a": "1"})
    sync_at(server, f"{src}/", bucket.url(), env=STRICT | {"SSL_CERT_FILE": str(authority.bundle)}).done()
    assert bucket.all_keys() == {"a"}


def test_in_python_it_is_a_field_of_the_client_options(versitygw, safe, authority, src):
    bucket, (server, _) = versitygw.bucket(), safe(versitygw)
    build(src, {"a": "1"})
    sypy.sync(f"{src}/", bucket.url(), s3=config(server, ca_bundle=authority.bundle))
    assert bucket.all_keys() == {"a"}


@pytest.mark.parametrize(
    ("certificate", "trusted", "says", "hint"),
    [
        ({}, False, "is not trusted", "ca_bundle"),
        ({"host": "other.test"}, True, "is for another host", "endpoint"),
        ({"lasts": -datetime.timedelta(hours=1)}, True, "has expired", "clock"),
    ],
    ids=["unknown", "another host", "expired"],
)
def test_a_certificate_that_will_not_do_fails_at_once(
    versitygw, safe, authority, sync_at, src, certificate, trusted, says, hint
):
    bucket, (server, proxy) = versitygw.bucket(), safe(versitygw, **certificate)
    build(src, {"a": "1"})
    trust = {"ca_bundle": authority.bundle} if trusted else {}
    error = sync_at(server, f"{src}/", bucket.url(), env=STRICT, **trust).error
    assert error["kind"] == "network"
    assert says in error["message"] and "127.0.0.1" in error["message"]
    assert hint in error["hint"]
    assert proxy.connections == 1, "it is not tried again"
    assert proxy.count() == 0
    with pytest.raises(sypy.NetworkError, match=says) as caught:
        sypy.sync(f"{src}/", bucket.url(), s3=config(server, **trust))
    assert hint in caught.value.hint
    assert bucket.all_keys() == set()


def test_plain_http_where_https_is_spoken_and_the_other_way_around(versitygw, safe, authority, sync_at, src):
    bucket, (server, _) = versitygw.bucket(), safe(versitygw)
    build(src, {"a": "1"})
    began = time.monotonic()
    for url in (server.url.replace("https:", "http:"), versitygw.url.replace("http:", "https:")):
        env = {"AWS_ENDPOINT_URL": url}
        outcome = sync_at(server, f"{src}/", bucket.url(), ca_bundle=authority.bundle, env=env)
        assert outcome.error["kind"] == "network"
        assert "127.0.0.1" in outcome.error["message"]
    assert time.monotonic() - began < 60
    assert bucket.all_keys() == set()


def test_plain_http_is_refused_before_anything_is_sent(versitygw, proxied, safe, authority, sync_at, src):
    build(src, {"a": "1"})
    bucket, (server, proxy) = versitygw.bucket(), proxied(versitygw)
    outcome = sync_at(server, f"{src}/", bucket.url(), env=STRICT)
    assert outcome.error["kind"] == "config" and "not encrypted" in outcome.error["message"]
    assert "--allow-http" in outcome.error["hint"]
    assert proxy.connections == 0
    sync_at(server, f"{src}/", bucket.url(), env=STRICT, allow_http=True).done()
    # Allowed does not mean preferred: with HTTPS the certificate counts as ever.
    server, proxy = safe(versitygw)
    assert sync_at(server, f"{src}/", bucket.url(), env=STRICT, allow_http=True).code == 1
    assert proxy.count() == 0


@pytest.mark.parametrize("text", ["", "no certificate", None])
def test_a_bundle_that_is_none_is_refused(versitygw, safe, sync_at, src, tmp_path, text):
    bucket, (server, proxy) = versitygw.bucket(), safe(versitygw)
    build(src, {"a": "1"})
    bundle = tmp_path / "bundle.pem"
    if text is not None:
        bundle.write_text(text)
    outcome = sync_at(server, f"{src}/", bucket.url(), ca_bundle=bundle)
    assert outcome.code == 1
    assert ("ca_bundle" if text is not None else str(bundle)) in outcome.stderr + str(outcome.events)
    assert proxy.connections == 0
