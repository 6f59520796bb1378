"""The same promises on file systems of several kinds, and between them."""

import os
import time

import pytest

import sypy
from trees import WHEN, File, Hard, Link, assert_same, build, difference, rewrite, snapshot

TREE = {
    "a": "1", "d/e/f": os.urandom(300_000), "empty/": None, "l": Link("a"), "run": File("#!", mode=0o755),
    "same": Hard("a"), "é\n": "odd",
}  # fmt: skip
KINDS = {
    "tmpfs": ("tmpfs", {"size": "16m"}),
    "ext4": ("ext4", {"size": "32m", "mkfs": ["-q", "-F"]}),
    "xfs": ("xfs", {"size": "320m", "mkfs": ["-q"]}),
    "btrfs": ("btrfs", {"size": "160m", "mkfs": ["-q"]}),
    "ramfs": ("ramfs", {}),
}


@pytest.fixture(params=KINDS)
def place(request, mount):
    kind, how = KINDS[request.param]
    return mount(kind, **how)


def test_into_within_and_back(src, tmp_path, place):
    build(src, TREE)
    for source, dest in ((src, place / "1"), (place / "1", place / "2"), (place / "2", tmp_path / "back")):
        sypy.sync(f"{source}/", f"{dest}/", preserve_hardlinks=True)
        assert_same(src, dest, hardlinks=True)
        again = sypy.sync(f"{source}/", f"{dest}/", preserve_hardlinks=True, delete=True)
        assert (again.files_updated, again.files_metadata_updated, again.files_deleted) == (0, 0, 0)


def test_a_copy_on_xfs_shares_its_blocks(mount):
    place = mount("xfs", size="400m", mkfs=["-q"])
    build(place / "src", {"big": os.urandom(50 << 20)})
    os.sync()
    free = os.statvfs(place).f_bavail
    started = time.monotonic()
    sypy.sync(f"{place}/src/", f"{place}/dst/")
    took = time.monotonic() - started
    os.sync()
    assert (free - os.statvfs(place).f_bavail) * os.statvfs(place).f_frsize < 5 << 20
    assert took < 2
    assert_same(place / "src", place / "dst")
    rewrite(place / "src/big", os.urandom(1 << 20), WHEN + 1)
    sypy.sync(f"{place}/src/", f"{place}/dst/")
    assert_same(place / "src", place / "dst")


@pytest.mark.parametrize(
    ("kind", "how", "grain"),
    [
        ("ext4", {"size": "32m", "mkfs": ["-q", "-F", "-I", "128"]}, 10**9),
        ("vfat", {"size": "16m", "mkfs": []}, 2 * 10**9),
    ],
    ids=["ext4 of 1 s", "FAT of 2 s"],
)
def test_times_are_compared_at_the_coarser_side(src, mount, kind, how, grain):
    place = mount(kind, **how)
    build(src, {"f": "content", "d/g": File("odd second", mtime_ns=1_700_000_001_987_654_321)})
    options = {"preserve_permissions": False}
    sypy.sync(f"{src}/", f"{place}/", **options)
    again = sypy.sync(f"{src}/", f"{place}/", **options)
    assert (again.files_updated, again.files_metadata_updated, again.files_skipped) == (0, 0, 2)
    rewrite(src / "f", "changed", WHEN + 2 * grain)
    assert sypy.sync(f"{src}/", f"{place}/", **options).files_updated == 1
    assert not difference(snapshot(src, times=False, modes=False), snapshot(place, times=False, modes=False))


def test_coarse_times_at_the_source_are_no_reason_to_copy(mount, dst):
    place = mount("vfat", size="16m")
    build(place, {"f": "content"})
    sypy.sync(f"{place}/", f"{dst}/")
    again = sypy.sync(f"{place}/", f"{dst}/")
    assert (again.files_updated, again.files_metadata_updated) == (0, 0)


def test_names_that_fall_together_at_the_destination_are_an_error(src, mount):
    place = mount("vfat", size="16m")
    build(src, {"Readme": "one", "README": "another", "other": "1"})
    stats = sypy.sync(f"{src}/", f"{place}/", preserve_permissions=False, on_error="collect")
    assert not stats.success
    assert (place / "README").read_text() in ("one", "another") and (place / "other").exists()


def test_links_where_there_are_none_are_an_error_that_says_so(src, mount):
    place = mount("vfat", size="16m")
    build(src, {"f": "1", "l": Link("f")})
    with pytest.raises(sypy.SyncError):
        sypy.sync(f"{src}/", f"{place}/", preserve_permissions=False)
    sypy.sync(f"{src}/", f"{place}/", preserve_permissions=False, links="follow")
    assert (place / "l").read_text() == "1"
