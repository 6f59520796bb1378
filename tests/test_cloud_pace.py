"""How many large transfers are under way goes by what the service can take."""

import os

import pytest

from fault_proxy import Answer, Slow
from trees import build

MIB = 1 << 20
ENOUGH = 3


@pytest.mark.parametrize("way", ["up", "down"])
def test_fewer_are_under_way_after_a_service_asked_for_fewer(versitygw, proxied, sy_binary, sync_at, src, dst, way):
    bucket, content = versitygw.bucket(), os.urandom(240 * MIB)
    if way == "up":
        build(src, {"big": content})
    else:
        bucket.put("big", content)
    server, proxy = proxied(versitygw)
    busy = Answer(503, "SlowDown")
    proxy.fault(busy, kind=["PART", "GET"], where=lambda request: request.at_once > ENOUGH)
    proxy.fault(Slow(100 * MIB), kind=["PART", "GET"])
    source, dest = (f"{src}/", bucket.url()) if way == "up" else (bucket.url(), f"{dst}/")
    sync_at(server, source, dest, retry=3, retry_delay=0).done()
    assert (bucket.get("big") if way == "up" else (dst / "big").read_bytes()) == content
    requests = proxy.of("PART", "GET")
    refused = [n for n, request in enumerate(requests) if request.status == busy.status]
    assert len(refused) >= 2, "it began with more"
    assert max(request.at_once for request in requests[-4:]) <= ENOUGH + 1, refused
    assert len(refused) < 30, refused


def test_many_large_files_share_what_may_be_under_way(versitygw, proxied, sync_at, src):
    bucket = versitygw.bucket()
    build(src, {f"{n}": os.urandom(33 * MIB) for n in range(8)})
    server, proxy = proxied(versitygw)
    sync_at(server, f"{src}/", bucket.url()).done()
    assert max(request.at_once for request in proxy.of("PART")[:12]) <= 12
    assert bucket.uploads() == [] and len(bucket.all_keys()) == 8
