"""Trees that meet in ways their paths don't show: through links and mounts. Nothing is copied into itself or deleted twice."""

import os
import subprocess

import pytest

from trees import Link, build, keys, leftovers, snapshot, text

MANY = {f"d{n:03}/f": "1" for n in range(100)}
FORCE = ("--delete", "--force-delete")


@pytest.fixture(autouse=True)
def cleared(tmp_path):
    """A tree that was copied into itself is deeper than what Python's own `rmtree` can remove."""
    yield
    subprocess.run(["rm", "-rf", "--one-file-system", *map(str, tmp_path.iterdir())], check=False)


def copies_within_copies(root, name) -> list[str]:
    """What was copied from the destination into the destination, below the `name` under which the source shows it."""
    return [key for key in keys(root) if key.startswith(f"{name}/d")]


# The source holds the destination.


@pytest.mark.parametrize("source", ["link", "link/", "./link/../link"])
@pytest.mark.parametrize("dest", ["real/sub/", "real/new", "link/sub/"])
def test_a_followed_link_to_the_source_does_not_hide_that_the_destination_is_inside(
    sync, tmp_path, monkeypatch, source, dest
):
    build(tmp_path, {"real/f": "1", "real/sub/": None, "link": Link("real")})
    monkeypatch.chdir(tmp_path)
    before = snapshot(tmp_path, untouched=True)
    assert sync("--links", "follow", source=source, dest=dest).returncode == 1
    assert snapshot(tmp_path, untouched=True) == before


@pytest.mark.parametrize("options", [(), FORCE], ids=["", "delete"])
def test_a_destination_that_a_link_in_the_source_leads_to_is_not_copied_into_itself(sync, src, dst, options):
    build(src, MANY | {"z": Link(str(dst))})
    dst.mkdir()
    done = sync("--links", "follow", "--unsafe-links", *options)
    assert done.returncode in (1, 23), done.stdout
    assert copies_within_copies(dst, "z") == leftovers(dst) == []


def test_a_destination_that_lies_below_what_a_link_leads_to_is_not_copied_into_itself(sync, src, tmp_path):
    outside = build(tmp_path / "outside", {"f": "1", "dst/": None})
    build(src, MANY | {"z": Link(str(outside))})
    done = sync("--links", "follow", "--unsafe-links", dest=f"{outside}/dst/")
    assert done.returncode in (1, 23), done.stdout
    assert copies_within_copies(outside / "dst", "z/dst") == []


def test_a_destination_that_is_mounted_in_the_source_is_not_copied_into_itself(sync, src, dst, bind):
    build(src, MANY)
    dst.mkdir()
    bind(dst, src / "z")
    done = sync()
    assert done.returncode in (1, 23), done.stdout
    assert copies_within_copies(dst, "z") == []


def test_a_destination_that_is_a_mounted_part_of_the_source_is_not_copied_into_itself(sync, src, tmp_path, bind):
    build(src, MANY | {"z/": None})
    place = bind(src / "z", tmp_path / "place")
    done = sync(dest=f"{place}/")
    assert done.returncode in (1, 23), done.stdout
    assert copies_within_copies(place, "z") == []


# The destination holds the source, or what is none of its own.


@pytest.mark.parametrize(
    "options", [(), ("--trash",), ("--backup-dir", "bk")], ids=lambda options: "".join(options[:1])
)
def test_a_source_that_is_mounted_in_the_destination_is_not_deleted(sync, src, dst, bind, options):
    build(src, {f"f{n}": "precious" for n in range(10)})
    build(dst, {"gone": "x", "d/gone": "x"})
    bind(src, dst / "m")
    before = snapshot(src, untouched=True)
    done = sync(*FORCE, *options)
    assert done.returncode in (0, 1, 23), done.stderr
    assert snapshot(src, untouched=True) == before
    assert (dst / "m/f0").exists()


def test_a_source_that_is_mounted_deep_in_the_destination_is_not_deleted(sync, src, dst, bind):
    build(src, {f"d/f{n}": "precious" for n in range(10)})
    build(dst, {"other/place/gone": "x"})
    bind(src / "d", dst / "other/place/m")
    before = snapshot(src, untouched=True)
    done = sync(*FORCE)
    assert done.returncode in (0, 1, 23), done.stderr
    assert snapshot(src, untouched=True) == before


@pytest.mark.parametrize(
    "options", [(), ("--trash",), ("--backup-dir", "bk")], ids=lambda options: "".join(options[:1])
)
def test_what_is_mounted_in_the_destination_is_not_deleted(sync, src, dst, mount, bind, options):
    usb = build(mount("tmpfs", size="1m"), {"precious": "1", "d/precious": "1"})
    build(src, {f"f{n}": "1" for n in range(10)})
    build(dst, {"gone": "x", "parent/gone": "x"})
    bind(usb, dst / "parent/usb")
    before = snapshot(usb, untouched=True)
    done = sync(*FORCE, *options)
    assert done.returncode in (0, 23), done.stderr
    assert snapshot(usb, untouched=True) == before


def test_a_mounted_directory_does_not_make_way_for_a_file(sync, src, dst, mount, bind):
    usb = build(mount("tmpfs", size="1m"), {"precious": "1"})
    build(src, {"usb": "a file", "f": "1"})
    bind(usb, dst / "usb")
    assert sync(*FORCE).returncode == 23
    assert text(usb / "precious") == text(dst / "f") == "1"


def test_what_is_mounted_on_both_sides_is_still_kept_alike(sync, src, dst, mount, bind):
    usb = build(mount("tmpfs", size="1m"), {"gone": "1", "same": "1"})
    build(src, {"usb/same": "1", "usb/new": "1", "f": "1"})
    bind(usb, dst / "usb")
    assert sync(*FORCE).returncode == 0
    assert keys(usb) == {"same", "new"}


def test_source_and_destination_that_are_one_directory_are_refused(sync, src, dst, bind):
    build(src, {"f": "precious"})
    bind(src, dst)
    assert sync(*FORCE).returncode == 1
    assert os.listdir(src) == ["f"]
