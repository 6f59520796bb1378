"""One large file over several connections."""

import os

import pytest

import sypy
from ssh_host import host, way, wire_to
from trees import WHEN, File, assert_same, build, leftovers

__all__ = ["host", "way", "wire_to"]
MIB = 1 << 20


def over(host, wire, connections: int) -> sypy.SshConfig:
    return host.through(wire.port).replace(pool_size=connections)


@pytest.mark.parametrize("options", [{}, {"verify": True}, {"resume": False}, {"compress": True}], ids=str)
def test_a_large_file_goes_over_all_connections(way, host, wire_to, src, dst, options):
    build(src, {"d/big": File(os.urandom(72 * MIB + 12_345), mode=0o640, mtime_ns=WHEN), "small": "s"})
    wire = wire_to(host)
    stats = way(f"{src}/", f"{dst}/", ssh=over(host, wire, 4), **options)
    assert stats.success and stats.files_created == 2
    assert sum(carried > 7 * MIB for carried in wire.carried) == 4, wire.carried
    assert wire.bytes < 76 * MIB
    assert_same(src, dst)
    assert leftovers(dst) == []


def test_it_is_whole_after_a_cut(way, host, wire_to, src, dst):
    build(src, {"big": os.urandom(96 * MIB)})
    wire = wire_to(host)
    wire.cut_after(60 * MIB)
    way(f"{src}/", f"{dst}/", ssh=over(host, wire, 3), retry_delay=0.1).raise_for_errors()
    assert wire.was_cut
    assert_same(src, dst)
    assert leftovers(dst) == []
    # Ranges go side by side, so what is there may have gaps: what comes after the first one goes again, and all else once.
    assert wire.bytes < (60 + 96 + 6) * MIB


def test_an_old_file_gives_way(way, host, wire_to, src, dst):
    build(src, {"big": os.urandom(40 * MIB)})
    build(dst, {"big": File(b"old", mtime_ns=WHEN - 10**9)})
    wire = wire_to(host)
    way(f"{src}/", f"{dst}/", ssh=over(host, wire, 2)).raise_for_errors()
    assert_same(src, dst)
    assert sum(carried > 7 * MIB for carried in wire.carried) == 2, wire.carried


def test_a_host_that_takes_one_connection_gets_one(way, host, wire_to, src, dst):
    build(src, {"big": os.urandom(40 * MIB)})
    wire = wire_to(host)
    wire.at_most = 1
    way(f"{src}/", f"{dst}/", ssh=over(host, wire, 3)).raise_for_errors()
    assert_same(src, dst)
    assert sum(carried > 7 * MIB for carried in wire.carried) == 1, wire.carried
