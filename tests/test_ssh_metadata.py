"""What is said about files, over SSH: extended attributes, access lists, owners, holes, links, special files. At a real sshd."""

import grp
import os
import pwd
import shutil
import socket
import stat
import subprocess
import tempfile
from pathlib import Path

import pytest

import sypy
from events import Recorder
from ssh_host import Way, host, own_host, way
from test_metadata import acl, mode, set_acl, xattrs
from test_sparse import MIB, SHAPES, allocated, write_sparse
from trees import (
    WHEN,
    Dir,
    Fifo,
    File,
    Hard,
    Link,
    assert_same,
    build,
    difference,
    keys,
    rewrite,
    set_mtime,
    snapshot,
    text,
)

__all__ = ["host", "own_host", "way", "xattrs"]

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
needs_xattrs = pytest.mark.usefixtures("xattrs")
MARKED = {"user.tag": b"blue", "user.bytes": bytes(range(256)), "user.empty": b""}
X = {"preserve_xattrs": True}
A = {"preserve_acls": True}


def settled(way, src, dst, **options) -> None:
    """A second run finds nothing to do, nor does one that only looks."""
    before = snapshot(dst, untouched=True)
    assert way.changes(f"{src}/", f"{dst}/", dry_run=True, **options) == set()
    assert way.changes(f"{src}/", f"{dst}/", **options) == set()
    assert snapshot(dst, untouched=True) == before


def foretold(way, src, dst, **options) -> set:
    """What a run does, which is what a dry run says."""
    dry = way.changes(f"{src}/", f"{dst}/", dry_run=True, **options)
    assert way.changes(f"{src}/", f"{dst}/", **options) == dry
    return dry


# Extended attributes.


@needs_xattrs
def test_extended_attributes_arrive_when_wanted(way, src, dst):
    big = os.urandom(700_000)
    build(src, {
        "small": File("1", xattrs=MARKED), "empty": File(b"", xattrs=MARKED), "big": File(big, xattrs=MARKED),
        "plain": "2", "d": Dir(xattrs=MARKED), "d/e/f/": Dir(xattrs={"user.x": b"y"}), "d/g": "3", ".": Dir(xattrs={"user.root": b"r"}),
        "l": Link("small"), "d/tight": Dir(mode=0o500, xattrs=MARKED), "read-only": File("4", mode=0o444, xattrs=MARKED),
    })  # fmt: skip
    way(f"{src}/", f"{dst}/", **X).raise_for_errors()
    assert_same(src, dst, xattrs=True)
    settled(way, src, dst, **X)


@needs_xattrs
def test_extended_attributes_of_changed_files_arrive(way, src, dst):
    big = bytearray(os.urandom(700_000))
    build(src, {"big": File(bytes(big), xattrs={"user.a": b"old"}), "small": File("1", xattrs={"user.a": b"old"})})
    way(f"{src}/", f"{dst}/", **X).raise_for_errors()
    big[300_000] ^= 1
    rewrite(src / "big", bytes(big), WHEN + 1)
    rewrite(src / "small", "other", WHEN + 1)
    for name in ["big", "small"]:
        os.setxattr(src / name, "user.a", b"new")
        os.setxattr(src / name, "user.b", b"more")
    stats = way(f"{src}/", f"{dst}/", **X)
    assert stats.files_updated == 2 and stats.files_delta_synced == 1
    assert_same(src, dst, xattrs=True)


@needs_xattrs
def test_extended_attributes_are_changed_and_removed_without_moving_bytes(way, src, dst):
    build(
        src,
        {
            "f": File("1", xattrs={"user.a": b"new"}),
            "d/": Dir(xattrs={"user.d": b"1"}),
            "same": File("2", xattrs=MARKED),
        },
    )
    build(
        dst,
        {"f": File("1", xattrs={"user.a": b"old", "user.gone": b"x"}), "d/": None, "same": File("2", xattrs=MARKED)},
    )
    untouched = os.stat(dst / "same").st_ctime_ns
    assert foretold(way, src, dst, **X) == {("f", "metadata"), ("d", "metadata")}
    assert_same(src, dst, xattrs=True)
    assert os.stat(dst / "same").st_ctime_ns == untouched
    settled(way, src, dst, **X)


@needs_xattrs
@pytest.mark.parametrize("name", ["f", "big"])
def test_content_that_is_the_same_leaves_attributes_to_be_set(way, src, dst, name):
    content = os.urandom(300_000) if name == "big" else b"1"
    build(src, {name: File(content, xattrs={"user.a": b"new"})})
    build(dst, {name: File(content, mtime_ns=WHEN + 5)})
    assert foretold(way, src, dst, checksum=True, **X) == {(name, "metadata")}
    assert_same(src, dst, xattrs=True)


@needs_xattrs
def test_extended_attributes_stay_behind_when_not_wanted(way, src, dst):
    build(src, {"f": File("1", xattrs=MARKED), "d": Dir(xattrs=MARKED)})
    way(f"{src}/", f"{dst}/", **A).raise_for_errors()
    assert all(not node.get("xattrs") for node in snapshot(dst, xattrs=True).values())


@needs_xattrs
def test_many_and_large_attributes_arrive(way, src, dst, shm_path):
    """More than come along with a small file; on a file system that has room for them."""
    few = {f"user.{n}": os.urandom(1500) for n in range(3)}
    build(
        src,
        {
            "d": Dir(xattrs={"user.d": b"d"}),
            **{f"f{n}": File(f"{n}", xattrs={f"user.{n}": b"x" * 900}) for n in range(400)},
        },
    )
    big = shm_path / "src"
    try:
        build(big, {"f": File("1", xattrs=few), "g": File(os.urandom(300_000), xattrs=few), "d/": Dir(xattrs=few)})
    except OSError:
        big = None
    way(f"{src}/", f"{dst}/", **X).raise_for_errors()
    assert_same(src, dst, xattrs=True)
    settled(way, src, dst, **X)
    if big:
        way(f"{big}/", f"{shm_path}/dst/", **X).raise_for_errors()
        assert_same(big, shm_path / "dst", xattrs=True)
        settled(way, big, shm_path / "dst", **X)


@as_root
@needs_xattrs
def test_attributes_for_the_superuser_arrive_for_the_superuser(way, src, dst):
    build(src, {"f": "1", "d/": None})
    try:
        os.setxattr(src / "f", "trusted.sypy", b"t")
        os.setxattr(src / "d", "trusted.sypy", b"t")
    except OSError as error:
        pytest.skip(f"no trusted attributes here: {error}")
    way(f"{src}/", f"{dst}/", **X).raise_for_errors()
    assert_same(src, dst, xattrs=True)
    settled(way, src, dst, **X)


@needs_xattrs
def test_attributes_are_refused_where_the_destination_keeps_none(way, src, mount):
    """Before anything is written; `archive` leaves them out."""
    build(src, {"f": File("1", xattrs=MARKED)})
    there = mount("ramfs")
    with pytest.raises(sypy.UnsupportedError, match="preserve_xattrs"):
        way(f"{src}/", f"{there}/dst/", **X)
    assert keys(there) == set()


# Access control lists.


def test_access_control_lists_arrive_when_wanted(way, src, dst):
    build(src, {"f": "1", "d/g": "2", "plain": "3", "pipe": Fifo(), "big": os.urandom(300_000)})
    for name in ["f", "big"]:
        set_acl(src / name, "-m u:1234:rw,g:99:r")
    set_acl(src / "d", "-m u:1234:rwx", "-d -m u:77:rx")
    set_acl(src / "pipe", "-m u:1234:rw")
    how = A | {"preserve_devices": True}
    way(f"{src}/", f"{dst}/", **how).raise_for_errors()
    for key in keys(src):
        assert acl(dst / key) == acl(src / key), key
    assert_same(src, dst)
    settled(way, src, dst, **how)


def test_access_control_lists_are_changed_and_removed(way, src, dst):
    build(src, {"f": "1", "g": "2", "d/": None, "pipe": Fifo()})
    how = A | {"preserve_devices": True}
    way(f"{src}/", f"{dst}/", **how)
    set_acl(src / "f", "-m u:1234:rw")
    set_acl(src / "pipe", "-m u:1234:rw")
    set_acl(src / "d", "-d -m u:77:rx")
    set_acl(dst / "g", "-m u:1234:rw")
    assert foretold(way, src, dst, **how) == {(key, "metadata") for key in ["f", "g", "d", "pipe"]}
    assert all(acl(dst / key) == acl(src / key) for key in keys(src))
    settled(way, src, dst, **how)


def test_access_control_lists_stay_behind_when_not_wanted(way, src, dst):
    build(src, {"f": "1"})
    set_acl(src / "f", "-m u:1234:rw")
    way(f"{src}/", f"{dst}/").raise_for_errors()
    assert "1234" not in acl(dst / "f")


# From host to host.


@needs_xattrs
def test_all_of_it_goes_from_host_to_host(host, own_host, src, dst, sy_binary):
    other = own_host(agent=sy_binary)
    ends = {"source_options": host.config, "dest_options": other.config}

    def run(**options) -> set:
        seen = Recorder()
        how = {"archive": True, "on_event": seen, **ends, **options}
        sypy.sync(host.url(f"{src}/"), other.url(f"{dst}/"), **how).raise_for_errors()
        return seen.changes

    build(src, {
        "small": File("1", mode=0o640, xattrs=MARKED), "big": File(os.urandom(700_000), xattrs=MARKED), "d": Dir(xattrs=MARKED), "d/g": "2",
        "l": Link("small"), "d/hard": Hard("big"), "d/acl": "3", **{f"many/{n}": File(f"{n}", xattrs={"user.n": b"%d" % n}) for n in range(300)},
    })  # fmt: skip
    write_sparse(src / "hole", 4 * MIB, {MIB: b"x"})
    write_sparse(src / "little", 100_000, {50_000: b"x"})
    set_acl(src / "d/acl", "-m u:1234:rw")
    set_mtime(src, WHEN)
    assert run(dry_run=True) == run()
    assert_same(src, dst, xattrs=True, hardlinks=True)
    assert acl(dst / "d/acl") == acl(src / "d/acl")
    assert allocated(dst / "hole") <= allocated(src / "hole") + 65536
    assert allocated(dst / "little") <= allocated(src / "little")
    before = snapshot(dst, untouched=True)
    assert run(dry_run=True) == run() == set()
    assert snapshot(dst, untouched=True) == before
    for name in ["small", "big", "d", "many/7"]:
        os.setxattr(src / name, "user.tag", b"red")
    rewrite(src / "big", os.urandom(700_000), WHEN + 1)
    set_acl(src / "d/g", "-m u:77:rw")
    expected = {
        ("small", "metadata"),
        ("d", "metadata"),
        ("many/7", "metadata"),
        ("d/g", "metadata"),
        ("big", "update"),
    }
    assert run(dry_run=True) >= expected
    assert run() >= expected
    assert_same(src, dst, xattrs=True, hardlinks=True)
    assert run(sparse=False, ignore_times=True) >= {("hole", "update"), ("little", "update")}
    assert allocated(dst / "hole") >= 4 * MIB


# Owners.


@as_root
@pytest.mark.parametrize("bits", [0o644, 0o2755, 0o4755, 0o6711, 0o1777])
def test_set_id_bits_arrive_with_and_without_the_owner(way, src, dst, bits):
    build(src, {"f": File("1", mode=bits), "big": File(os.urandom(300_000), mode=bits), "d": Dir(mode=bits)})
    for name in ["f", "big", "d"]:
        os.chown(src / name, 1234, 5678)
        os.chmod(src / name, bits)
    for how in [{}, {"preserve_owner": True}]:
        way(f"{src}/", f"{dst}/", **how).raise_for_errors()
        assert [mode(dst / name) for name in ["f", "big", "d"]] == [bits] * 3
    assert_same(src, dst, owner=True)
    settled(way, src, dst, preserve_owner=True)


OTHERS = """#!/bin/sh
exec unshare -m /bin/sh -c 'mount --bind {place}/passwd /etc/passwd && mount --bind {place}/group /etc/group && exec {sy} agent'
"""


class Strangers:
    """A host on which users of this machine have other numbers: `daemon` here is `there["daemon"]` there."""

    def __init__(self, place: Path, agent: Path) -> None:
        self.there = {"daemon": 7001, "bin": 7002, "stranger": 7003}
        users = "".join(f"{name}:x:{number}:{number}::/:/bin/sh\n" for name, number in self.there.items())
        groups = "".join(f"{name}:x:{number}:\n" for name, number in self.there.items())
        (place / "passwd").write_text("toor:x:0:0::/root:/bin/sh\n" + users)
        (place / "group").write_text("toor:x:0:\n" + groups)
        self.agent = place / "agent"
        self.agent.write_text(OTHERS.format(place=place, sy=agent))
        self.agent.chmod(0o755)


@pytest.fixture(params=["push", "pull"])
def strangers(request, own_host, sy_binary, tmp_path):
    """A way to or from a host with other numbers; `strangers.there` has them."""
    probe = ["unshare", "-m", "mount", "--bind", "/etc/group", "/etc/passwd"]
    if (
        os.geteuid() != 0
        or shutil.which("unshare") is None
        or subprocess.run(probe, capture_output=True).returncode != 0
    ):
        pytest.skip("no mount namespaces here")
    others = Strangers(tmp_path, sy_binary)
    found = Way(own_host(agent=others.agent), request.param == "push")
    found.there = others.there
    return found


def numbers(name: str) -> tuple[int, int]:
    return pwd.getpwnam(name).pw_uid, grp.getgrnam(name).gr_gid


def test_owners_go_by_name(strangers, src, dst):
    here, there = numbers("daemon"), (strangers.there["daemon"],) * 2
    source, copy = (here, there) if strangers.is_push else (there, here)
    build(
        src,
        {
            "f": "1",
            "big": os.urandom(300_000),
            "d/": None,
            "l": Link("f"),
            "pipe": Fifo(),
            "root": "2",
            "nameless": "3",
        },
    )
    owned = ["f", "big", "d", "l", "pipe"]
    for name in owned:
        os.chown(src / name, *source, follow_symlinks=False)
    os.chown(src / "nameless", 54321, 54322)
    how = {"preserve_owner": True, "preserve_devices": True}
    strangers(f"{src}/", f"{dst}/", **how).raise_for_errors()
    owner = {name: node["owner"] for name, node in snapshot(dst, owner=True).items()}
    assert {name: owner[name] for name in owned} == dict.fromkeys(owned, copy)
    assert (owner["root"], owner["nameless"]) == ((0, 0), (54321, 54322))
    settled(strangers, src, dst, **how)
    # A large file that is changed, and one of which only the owner is.
    rewrite(src / "big", os.urandom(300_000), WHEN + 1)
    os.chown(src / "root", *source)
    assert foretold(strangers, src, dst, **how) == {("big", "update"), ("root", "metadata")}
    assert [(os.stat(dst / name).st_uid, os.stat(dst / name).st_gid) for name in ["big", "root"]] == [copy] * 2


def test_owners_go_by_number_when_that_is_wanted(strangers, src, dst):
    build(src, {"f": "1", "d/": None})
    for name in ["f", "d"]:
        os.chown(src / name, *numbers("daemon"))
    how = {"preserve_owner": True, "numeric_ids": True}
    strangers(f"{src}/", f"{dst}/", **how).raise_for_errors()
    assert_same(src, dst, owner=True)
    settled(strangers, src, dst, **how)


def test_a_single_file_has_its_owner_by_name(strangers, src, dst):
    here, there = numbers("daemon"), (strangers.there["daemon"],) * 2
    source, copy = (here, there) if strangers.is_push else (there, here)
    build(src, {"f": "1"})
    os.chown(src / "f", *source)
    strangers(f"{src}/f", f"{dst}/", preserve_owner=True).raise_for_errors()
    assert (os.stat(dst / "f").st_uid, os.stat(dst / "f").st_gid) == copy
    assert strangers.changes(f"{src}/f", f"{dst}/", preserve_owner=True) == set()


def test_numbers_without_owners_are_refused(src, dst):
    build(src, {"f": "1"})
    with pytest.raises(sypy.ConfigError, match="numeric_ids"):
        sypy.sync(f"{src}/", f"{dst}/", numeric_ids=True)
    sypy.sync(f"{src}/", f"{dst}/", numeric_ids=True, archive=True)


@pytest.fixture
def commoner(own_host, sy_binary):
    """A host where the agent is nobody's: it may do nothing that only root may. And a directory that is its own."""
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("needs root and setpriv")
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        place = Path(name)
        place.chmod(0o755)
        shutil.copy(sy_binary, place / "sy-agent")
        (place / "agent").write_text(
            f"#!/bin/sh\nexport HOME={place}/home\ncd {place}/home\n"
            f"exec setpriv --reuid 65534 --regid 65534 --clear-groups {place}/sy-agent agent\n"
        )
        (place / "agent").chmod(0o755)
        for own in ["home", "own"]:
            (place / own).mkdir()
            os.chown(place / own, 65534, 65534)
        host = own_host(agent=place / "agent")
        yield host, place / "own"


def test_archive_is_what_the_other_side_may_do(commoner, src, tmp_path):
    """Root pushes to somebody who is not: no owners, no devices, no attributes of root's; and pulls that back as root."""
    host, own = commoner
    build(src, {"f": File("1", mode=0o640), "d/g": "2", "pipe": Fifo(), "l": Link("f")})
    os.chown(src / "f", 1234, 5678)
    push, pull = Way(host, True), Way(host, False)
    push(f"{src}/", f"{own}/dst/", archive=True).raise_for_errors()
    assert keys(own / "dst") == {"f", "d", "d/g", "l"}
    assert {node["owner"] for node in snapshot(own / "dst", owner=True).values()} == {(65534, 65534)}
    assert mode(own / "dst/f") == 0o640
    assert push.changes(f"{src}/", f"{own}/dst/", archive=True) == set()
    pull(f"{own}/dst/", f"{tmp_path}/back/", archive=True).raise_for_errors()
    assert_same(own / "dst", tmp_path / "back", owner=True)
    assert pull.changes(f"{own}/dst/", f"{tmp_path}/back/", archive=True) == set()


@needs_xattrs
def test_attributes_of_root_are_left_out_by_others(commoner, src):
    host, own = commoner
    build(src, {"f": File("1", xattrs={"user.a": b"1"}), "d": Dir(xattrs={"user.a": b"1"})})
    try:
        os.setxattr(src / "f", "trusted.sypy", b"t")
    except OSError as error:
        pytest.skip(f"no trusted attributes here: {error}")
    push = Way(host, True)
    push(f"{src}/", f"{own}/dst/", **X).raise_for_errors()
    assert snapshot(own / "dst", xattrs=True)["f"]["xattrs"] == {"user.a": b"1"}
    settled(push, src, own / "dst", **X)


# Holes.


@pytest.mark.parametrize("shape", SHAPES)
def test_holes_stay_holes(way, src, dst, shape):
    src.mkdir()
    write_sparse(src / "f", *SHAPES[shape])
    set_mtime(src, WHEN)
    way(f"{src}/", f"{dst}/").raise_for_errors()
    assert_same(src, dst)
    assert allocated(dst / "f") <= allocated(src / "f") + 65536


def test_holes_of_small_files_stay_holes(way, src, dst):
    src.mkdir()
    for name, size, pieces in [("a", 100_000, {50_000: b"x"}), ("b", 131_072, {}), ("c", 70_001, {69_000: b"end"})]:
        write_sparse(src / name, size, pieces)
    set_mtime(src, WHEN)
    way(f"{src}/", f"{dst}/", verify=True).raise_for_errors()
    assert_same(src, dst)
    assert [allocated(dst / name) for name in "abc"] == [allocated(src / name) for name in "abc"]


def test_holes_are_filled_when_not_wanted(way, src, dst):
    src.mkdir()
    write_sparse(src / "f", 4 * MIB, {MIB: b"x"})
    write_sparse(src / "small", 100_000, {0: b"x"})
    way(f"{src}/", f"{dst}/", sparse=False).raise_for_errors()
    assert {key: node.get("content") for key, node in snapshot(dst).items()} == {
        key: node.get("content") for key, node in snapshot(src).items()
    }
    assert allocated(dst / "f") >= 4 * MIB and allocated(dst / "small") >= 100_000


def test_a_huge_hole_takes_no_time_and_no_space(way, src, dst):
    src.mkdir()
    with open(src / "f", "wb") as file:
        file.truncate(1 << 40)
        file.seek(1 << 39)
        file.write(b"in the middle of nowhere")
    for when in [WHEN, WHEN + 1]:
        # The second time there is a file of the same size, of which differences would take long to look for.
        set_mtime(src / "f", when)
        way(f"{src}/", f"{dst}/", timeout=30).raise_for_errors()
        with open(dst / "f", "rb") as file:
            file.seek(1 << 39)
            assert file.read(24) == b"in the middle of nowhere"
        assert os.stat(dst / "f").st_size == 1 << 40 and allocated(dst / "f") < MIB


def test_a_changed_file_has_holes_where_the_source_has_them(way, src, dst):
    """Zeros take the place of data, data that of zeros, and the end is a hole."""
    data = os.urandom(4 * MIB)
    src.mkdir()
    write_sparse(src / "f", 8 * MIB, {0: data})
    way(f"{src}/", f"{dst}/").raise_for_errors()
    os.unlink(src / "f")
    write_sparse(src / "f", 9 * MIB, {0: data[:MIB], 3 * MIB: data[3 * MIB :], 6 * MIB: data[:MIB]})
    set_mtime(src / "f", WHEN + 1)
    stats = way(f"{src}/", f"{dst}/")
    assert stats.files_delta_synced == 1
    assert snapshot(dst)["f"] == snapshot(src)["f"]
    assert allocated(dst / "f") <= allocated(src / "f") + 65536


def test_a_changed_file_without_holes_gets_none(way, src, dst):
    build(src, {"f": os.urandom(MIB) + bytes(MIB)})
    way(f"{src}/", f"{dst}/").raise_for_errors()
    rewrite(src / "f", os.urandom(MIB) + bytes(MIB), WHEN + 1)
    way(f"{src}/", f"{dst}/").raise_for_errors()
    assert_same(src, dst)
    assert allocated(dst / "f") >= 2 * MIB


# Links and special files.


def test_hard_links_are_linked_again_after_changes(way, src, dst):
    big = os.urandom(400_000)
    build(src, {"a": "one", "d/b": Hard("a"), "big": big, "e/big": Hard("big"), "single": "s", "l": Link("a")})
    how = {"preserve_hardlinks": True}
    way(f"{src}/", f"{dst}/", **how).raise_for_errors()
    assert_same(src, dst, hardlinks=True)
    settled(way, src, dst, **how)
    rewrite(src / "big", os.urandom(400_001), WHEN + 1)
    (src / "d/b").unlink()
    build(src, {"d/b": "alone now", "d/c": Hard("single")})
    way(f"{src}/", f"{dst}/", **how).raise_for_errors()
    assert_same(src, dst, hardlinks=True)
    settled(way, src, dst, **how)


def test_metadata_of_one_name_are_not_forced_on_another(way, src, dst):
    """The destination has two names of one file, the source two files that only differ in their permissions."""
    build(src, {"a": File("same", mode=0o600), "b": File("same", mode=0o644)})
    build(dst, {"a": File("same", mode=0o644, mtime_ns=WHEN - 5), "b": Hard("a")})
    assert foretold(way, src, dst, checksum=True) >= {("a", "update")}
    way(f"{src}/", f"{dst}/", checksum=True)
    assert_same(src, dst, hardlinks=True)


@as_root
def test_devices_fifos_and_sockets_arrive(way, src, dst):
    build(src, {"pipe": Fifo(mode=0o640), "d/pipe": Fifo(mode=0o600), "f": "1"})
    os.mknod(src / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    os.mknod(src / "disk", 0o640 | stat.S_IFBLK, os.makedev(259, 70_000))
    here = os.open(src, os.O_DIRECTORY)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"/proc/self/fd/{here}/socket")
    os.close(here)
    for name in ["null", "disk", "socket", "."]:
        os.chmod(src / name, 0o640 if name != "." else 0o755)
        set_mtime(src / name, WHEN)
    how = {"preserve_devices": True}
    assert foretold(way, src, dst, **how) >= {(name, "create") for name in ["null", "disk", "socket", "pipe", "d/pipe"]}
    assert_same(src, dst)
    settled(way, src, dst, **how)
    os.chmod(src / "null", 0o600)
    (src / "disk").unlink()
    os.mknod(src / "disk", 0o640 | stat.S_IFBLK, os.makedev(7, 1))
    set_mtime(src / "disk", WHEN)
    set_mtime(src, WHEN)
    assert foretold(way, src, dst, **how) == {("null", "metadata"), ("disk", "update")}
    assert difference(snapshot(src), snapshot(dst)) == []


def test_special_files_are_left_out_when_not_wanted(way, src, dst):
    build(src, {"pipe": Fifo(), "f": "1"})
    stats = way(f"{src}/", f"{dst}/")
    assert keys(dst) == {"f"} and text(dst / "f") == "1"
    assert stats.success and stats.files_skipped == 1
