"""Copies between services, through this machine: what others gave an object goes along, and what arrives is what was there."""

import itertools
import random

import pytest

from fault_proxy import Corrupt

MIB = 1 << 20
HANDLING = {
    "cache-control": "max-age=60",
    "content-disposition": 'attachment; filename="a.txt"',
    "content-encoding": "br",
    "content-language": "de",
}
KIND = "text/x-special"


def noise(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


def put(bucket, key: str, content: bytes, metadata: dict[str, str]) -> None:
    """With all that a service lets one say about an object."""
    name = bucket.server.name
    if name == "azurite":
        from azure.storage.blob import ContentSettings

        told = {name.replace("-", "_"): value for name, value in HANDLING.items()}
        settings = ContentSettings(content_type=KIND, **told)
        bucket.server.client.get_container_client(bucket.name).upload_blob(
            key, content, metadata=metadata, content_settings=settings, overwrite=True
        )
    elif name == "fake_gcs":
        bucket.put(key, content, metadata)
        told = {camel(name): value for name, value in HANDLING.items()}
        bucket.server.ask("PATCH", bucket._object(key), {**told, "contentType": KIND, "metadata": metadata})
    else:
        told = {camel(name, True): value for name, value in HANDLING.items()}
        bucket._client.put_object(
            Bucket=bucket.name, Key=key, Body=content, Metadata=metadata, ContentType=KIND, **told
        )


def camel(name: str, first: bool = False) -> str:
    words = [word.capitalize() for word in name.split("-")]
    return "".join(words) if first else words[0].lower() + "".join(words[1:])


def told(bucket, key: str) -> dict[str, str | None]:
    name = bucket.server.name
    if name == "azurite":
        blob = bucket.server.client.get_blob_client(bucket.name, key).get_blob_properties()
        settings = blob.content_settings
        return {name: getattr(settings, name.replace("-", "_")) for name in [*HANDLING, "content-type"]}
    head = bucket.head(key)
    first = name != "fake_gcs"
    return {name: head.get(camel(name, first)) for name in [*HANDLING, "content-type"]}


WAYS = [
    ("moto", "azurite"),
    ("moto", "fake_gcs"),
    ("azurite", "moto"),
    ("fake_gcs", "moto"),
    ("fake_gcs", "azurite"),
]


@pytest.fixture(params=WAYS, ids="-".join)
def way(request):
    return [request.getfixturevalue(name) for name in request.param]


@pytest.mark.parametrize("size", [10, 33 * MIB], ids=["small", "large"])
def test_what_others_gave_an_object_goes_along(way, sync_at, size):
    one, other = way
    source, dest, content = one.bucket(), other.bucket(), noise(size)
    put(source, "x/a", content, {"color": "blue", "mtime": "1617196800.25"})
    sync_at(one, source.url("x/"), dest.url("y/"), env=other.env).done()
    assert told(dest, "y/a") == {**HANDLING, "content-type": KIND}
    metadata = dest.metadata("y/a")
    assert metadata["color"] == "blue" and metadata["mtime"].startswith(("1617196800.25", "2021-03-31T13:20:00.25"))
    assert sync_at(one, source.url("x/"), dest.url("y/"), env=other.env).done().changes == set()


def test_names_that_azure_has_not_become_those_that_it_has(moto, azurite, sync_at):
    source, dest = moto.bucket(), azurite.bucket()
    source.put("a", "1", {"made-by": "me", "9lives": "cat"})
    sync_at(moto, source.url(), dest.url(), env=azurite.env).done()
    assert {name: value for name, value in dest.metadata("a").items() if name != "mtime"} == {"made_by": "me"}


def test_what_does_not_fit_in_headers_is_left_out(fake_gcs, moto, sync_at):
    source, dest = fake_gcs.bucket(), moto.bucket()
    source.put("a", "1", {"town": "Köln", "long": "x" * 3000, "short": "y"})
    sync_at(fake_gcs, source.url(), dest.url(), env=moto.env).done()
    assert {name: value for name, value in dest.metadata("a").items() if name != "mtime"} == {"short": "y"}


# The sums of the source.


@pytest.mark.parametrize("times", [1, None], ids=["once", "always"])
@pytest.mark.parametrize("kind", ["small", "middle", "large", "even parts", "odd parts"])
def test_what_was_spoiled_on_its_way_here_does_not_go_on(moto, azurite, proxied, sync_at, kind, times):
    source, dest = moto.bucket(), azurite.bucket()
    size = {"small": 5000, "middle": 3 * MIB}.get(kind, 36 * MIB)
    content = noise(size)
    cuts = {"even parts": [12, 24], "odd parts": [6, 19]}.get(kind)
    if cuts:
        ends = [0, *(cut * MIB for cut in cuts), size]
        source.put_parts("a", [content[a:b] for a, b in itertools.pairwise(ends)])
    else:
        source.put("a", content)
    dest.put("a", "the old one")
    server, proxy = proxied(moto)
    proxy.fault(Corrupt(at=4000), kind="GET", times=times)
    outcome = sync_at(server, source.url(), dest.url(), env=azurite.env, retry=1, retry_delay=0)
    if times:
        outcome.done()
        assert dest.get("a") == content
    else:
        assert outcome.code == 23
        assert [(error["kind"], error["path"]) for error in outcome.errors] == [("verification", source.url("a"))]
        assert dest.get("a") == b"the old one"


def test_an_object_of_parts_that_are_right_goes_on(moto, azurite, sync_at):
    source, dest, parts = moto.bucket(), azurite.bucket(), [noise(n * MIB, n) for n in (6, 13, 17)]
    source.put_parts("a", parts, "SHA256")
    sync_at(moto, source.url(), dest.url(), env=azurite.env).done()
    assert dest.get("a") == b"".join(parts)
