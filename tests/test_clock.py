"""Times that clocks should not show."""

import time

import pytest

import sypy
from trees import Dir, File, Link, assert_same, build, snapshot, text

YEAR = 365 * 86_400
TIMES = {
    "the epoch": 0,
    "a nanosecond before the epoch": -1,
    "half a second before the epoch": -500_000_000,
    "before 1970": -1_500_000_000_123_456_789 // 10,
    "1902": -(2**31) * 10**9 + 1,
    "the last second of 32 bits": (2**31 - 1) * 10**9,
    "the first second after 32 bits": 2**31 * 10**9 + 999_999_999,
    "2106": (2**32 + 1) * 10**9,
    "an hour from now": time.time_ns() + 3_600 * 10**9,
    "a hundred years from now": time.time_ns() + 100 * YEAR * 10**9,
}


def kept(path, mtime_ns) -> bool:
    """Can the file system hold the time at all?"""
    build(path, {"probe": File("", mtime_ns=mtime_ns)})
    return snapshot(path)["probe"]["mtime_ns"] == mtime_ns


@pytest.mark.parametrize("mtime_ns", TIMES.values(), ids=TIMES.keys())
@pytest.mark.parametrize("options", [{}, {"update": True}, {"checksum": True}], ids=str)
def test_a_strange_time_arrives_once(src, dst, tmp_path, mtime_ns, options):
    if not kept(tmp_path / "probe", mtime_ns):
        pytest.skip("this file system can't hold such a time")
    build(
        src, {"f": File("content", mtime_ns=mtime_ns), "d": Dir(mtime_ns=mtime_ns), "l": Link("f", mtime_ns=mtime_ns)}
    )
    sypy.sync(f"{src}/", f"{dst}/", **options)
    assert_same(src, dst)
    again = sypy.sync(f"{src}/", f"{dst}/", **options)
    assert (again.files_updated, again.files_metadata_updated) == (0, 0)


def test_update_is_not_confused_by_the_sign(src, dst):
    build(src, {"f": File("after 1970", mtime_ns=1)})
    build(dst, {"f": File("before 1970", mtime_ns=-1)})
    sypy.sync(f"{src}/", f"{dst}/", update=True)
    assert text(dst / "f") == "after 1970"
    build(src, {"f": File("long before", mtime_ns=-(10**18))})
    sypy.sync(f"{src}/", f"{dst}/", update=True)
    assert text(dst / "f") == "after 1970"


def test_a_file_from_the_future_at_the_destination_is_no_reason_to_keep_it(src, dst):
    build(src, {"f": "source"})
    build(dst, {"f": File("future", mtime_ns=time.time_ns() + YEAR * 10**9)})
    sypy.sync(f"{src}/", f"{dst}/")
    assert_same(src, dst)


def test_a_change_in_a_file_from_the_future_is_seen_by_checksum(src, dst):
    far = time.time_ns() + YEAR * 10**9
    build(src, {"f": File("one", mtime_ns=far)})
    for content in ("two", "six"):
        sypy.sync(f"{src}/", f"{dst}/", checksum=True)
        build(src, {"f": File(content, mtime_ns=far)})
    sypy.sync(f"{src}/", f"{dst}/", checksum=True)
    assert text(dst / "f") == "six"
