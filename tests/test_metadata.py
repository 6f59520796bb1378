"""Times, permissions, owner, extended attributes, access control lists, devices."""

import errno
import os
import shutil
import socket
import stat
import subprocess
from contextlib import suppress

import pytest

import sypy
from running import run, sync_in_child, sync_unprivileged, with_means
from trees import WHEN, Dir, Fifo, File, Link, assert_same, build, keys, rewrite, set_mtime, snapshot, text

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def mode(path) -> int:
    return stat.S_IMODE(os.lstat(path).st_mode)


# Times.


def test_times_arrive_to_the_nanosecond(src, dst):
    build(src, {"f": File("1", mtime_ns=1_234_567_890_987_654_321), "l": Link("f", mtime_ns=1_111_111_111_111_111_111)})
    sypy.sync(f"{src}/", f"{dst}/")
    assert os.stat(dst / "f").st_mtime_ns == 1_234_567_890_987_654_321
    assert os.lstat(dst / "l").st_mtime_ns == 1_111_111_111_111_111_111


def test_a_directory_has_its_own_time_after_its_content_came_and_went(src, dst):
    build(src, {"d/new": "1", "d/sub/deep": "2", "keep": "3"})
    build(dst, {"d/gone": "x", "keep": "3"})
    set_mtime(src / "d", WHEN - 5)
    set_mtime(src, WHEN - 7)
    sypy.sync(f"{src}/", f"{dst}/", delete=True)
    assert_same(src, dst)


def test_a_time_that_differs_on_a_directory_alone_is_set(src, dst):
    build(src, {"d/f": "1"})
    sypy.sync(f"{src}/", f"{dst}/")
    set_mtime(src / "d", WHEN + 12345)
    stats = sypy.sync(f"{src}/", f"{dst}/")
    assert (stats.files_created, stats.files_updated) == (0, 0)
    assert_same(src, dst)


def test_times_are_not_preserved_when_not_wanted(src, dst):
    build(src, {"f": "1", "d/g": "2"})
    sypy.sync(f"{src}/", f"{dst}/", preserve_times=False)
    assert all(os.stat(dst / key).st_mtime_ns > WHEN + 10**9 for key in ("f", "d", "d/g"))


# Permissions.


@pytest.mark.parametrize("bits", [0o000, 0o400, 0o644, 0o755, 0o777, 0o2755, 0o4755, 0o6711, 0o1777])
def test_permissions_arrive_whatever_the_umask(src, dst, bits):
    build(src, {"f": File("1", mode=bits)})
    sync_in_child(f"{src}/", f"{dst}/", means={"umask": 0o077})
    assert mode(dst / "f") == bits


@pytest.mark.parametrize("bits", [0o500, 0o700, 0o555, 0o1777, 0o2775])
def test_permissions_of_directories_arrive(src, dst, bits):
    build(src, {"d/f": "1", "d/e/g": "2", "d": Dir(mode=bits)})
    sync_unprivileged(f"{src}/", f"{dst}/")
    assert mode(dst / "d") == bits
    assert keys(dst) == {"d", "d/f", "d/e", "d/e/g"}


def test_a_read_only_directory_at_the_destination_can_be_updated(src, dst):
    build(src, {"d/f": "1", "d": Dir(mode=0o555)})
    sync_unprivileged(f"{src}/", f"{dst}/")
    rewrite(src / "d/f", "changed", WHEN + 1)
    build(src, {"d/g": "2", "d": Dir(mode=0o555)})
    sync_unprivileged(f"{src}/", f"{dst}/")
    assert_same(src, dst)


def test_a_read_only_file_is_replaced(src, dst):
    build(src, {"f": File("new content", mode=0o444)})
    build(dst, {"f": File("old", mode=0o400)})
    sync_unprivileged(f"{src}/", f"{dst}/")
    assert_same(src, dst)


@pytest.mark.parametrize(("umask", "expected"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_without_permissions_new_files_are_made_as_the_umask_has_it(src, dst, umask, expected):
    build(src, {"f": File("1", mode=0o666)})
    sync_in_child(f"{src}/", f"{dst}/", preserve_permissions=False, means={"umask": umask})
    assert mode(dst / "f") == expected


def test_without_permissions_an_update_keeps_those_of_the_destination(src, dst):
    build(src, {"f": File("new content", mode=0o777), "same": File("1", mode=0o777)})
    build(dst, {"f": File("old", mode=0o640), "same": File("1", mode=0o600)})
    sypy.sync(f"{src}/", f"{dst}/", preserve_permissions=False)
    assert text(dst / "f") == "new content"
    assert (mode(dst / "f"), mode(dst / "same")) == (0o640, 0o600)


def test_without_permissions_a_set_user_id_bit_does_not_travel(src, dst):
    build(src, {"f": File("1", mode=0o4755)})
    sypy.sync(f"{src}/", f"{dst}/", preserve_permissions=False)
    assert not mode(dst / "f") & stat.S_ISUID


# Owner.


@as_root
def test_owner_and_group_arrive_when_wanted(src, dst):
    build(src, {"f": File("1", mode=0o4755), "d/g": "2", "l": Link("f")})
    for key, owner in {"f": (1234, 5678), "d": (4321, 1), "d/g": (7, 7), "l": (99, 98)}.items():
        os.chown(src / key, *owner, follow_symlinks=False)
    os.chmod(src / "f", 0o4755)
    sypy.sync(f"{src}/", f"{dst}/", preserve_owner=True)
    assert_same(src, dst, owner=True)


@as_root
def test_owner_is_the_caller_when_not_wanted(src, dst):
    build(src, {"f": "1"})
    os.chown(src / "f", 1234, 5678)
    sypy.sync(f"{src}/", f"{dst}/")
    assert (os.stat(dst / "f").st_uid, os.stat(dst / "f").st_gid) == (os.geteuid(), os.getegid())


@as_root
def test_a_change_of_owner_alone_moves_no_bytes(src, dst):
    build(src, {"f": "1"})
    sypy.sync(f"{src}/", f"{dst}/", preserve_owner=True)
    os.chown(src / "f", 1234, 5678)
    stats = sypy.sync(f"{src}/", f"{dst}/", preserve_owner=True)
    assert (stats.files_metadata_updated, stats.files_updated, stats.bytes_transferred) == (1, 0, 0)
    assert_same(src, dst, owner=True)


# Extended attributes.


@pytest.fixture
def xattrs(tmp_path):
    (tmp_path / "probe").touch()
    try:
        os.setxattr(tmp_path / "probe", "user.probe", b"1")
    except OSError as error:
        if error.errno != errno.ENOTSUP:
            raise
        pytest.skip("no extended attributes here")
    os.remove(tmp_path / "probe")


@pytest.mark.usefixtures("xattrs")
def test_extended_attributes_arrive_when_wanted(src, dst):
    marked = {"user.tag": b"blue", "user.bytes": bytes(range(256)), "user.empty": b""}
    build(src, {"f": File("1", xattrs=marked), "d": Dir(xattrs=marked), "d/g": "2"})
    sypy.sync(f"{src}/", f"{dst}/", preserve_xattrs=True)
    assert_same(src, dst, xattrs=True)
    again = sypy.sync(f"{src}/", f"{dst}/", preserve_xattrs=True)
    assert (again.files_updated, again.files_metadata_updated) == (0, 0)


@pytest.mark.usefixtures("xattrs")
def test_extended_attributes_stay_behind_when_not_wanted(src, dst):
    build(src, {"f": File("1", xattrs={"user.tag": b"blue"})})
    sypy.sync(f"{src}/", f"{dst}/")
    assert snapshot(dst, xattrs=True)["f"]["xattrs"] == {}


@pytest.mark.usefixtures("xattrs")
def test_extended_attributes_are_changed_and_removed_without_moving_bytes(src, dst):
    build(src, {"f": File("1", xattrs={"user.a": b"new"})})
    build(dst, {"f": File("1", xattrs={"user.a": b"old", "user.gone": b"x"})})
    stats = sypy.sync(f"{src}/", f"{dst}/", preserve_xattrs=True)
    assert (stats.files_metadata_updated, stats.files_updated, stats.bytes_transferred) == (1, 0, 0)
    assert_same(src, dst, xattrs=True)


@pytest.mark.usefixtures("xattrs")
def test_a_read_only_file_can_have_extended_attributes(src, dst):
    build(src, {"f": File("1", mode=0o444, xattrs={"user.a": b"1"})})
    sync_unprivileged(f"{src}/", f"{dst}/", preserve_xattrs=True)
    assert_same(src, dst, xattrs=True)


# Access control lists.


def acl(path) -> str:
    return subprocess.run(["getfacl", "-pcn", str(path)], check=True, capture_output=True, text=True).stdout


def set_acl(path, *entries: str) -> None:
    if not shutil.which("setfacl"):
        pytest.skip("setfacl is not installed")
    for entry in entries:
        done = subprocess.run(["setfacl", *entry.split(), str(path)], capture_output=True, check=False)
        if done.returncode != 0:
            pytest.skip(f"no access control lists here: {done.stderr!r}")


def test_access_control_lists_arrive_when_wanted(src, dst):
    build(src, {"f": "1", "d/g": "2", "plain": "3"})
    set_acl(src / "f", "-m u:1234:rw,g:99:r")
    set_acl(src / "d", "-m u:1234:rwx", "-d -m u:77:rx")
    sypy.sync(f"{src}/", f"{dst}/", preserve_acls=True)
    for key in keys(src):
        assert acl(dst / key) == acl(src / key), key
    assert_same(src, dst)
    again = sypy.sync(f"{src}/", f"{dst}/", preserve_acls=True)
    assert (again.files_updated, again.files_metadata_updated) == (0, 0)


def test_access_control_lists_are_changed_and_removed(src, dst):
    build(src, {"f": "1", "g": "2"})
    sypy.sync(f"{src}/", f"{dst}/", preserve_acls=True)
    set_acl(src / "f", "-m u:1234:rw")
    set_acl(dst / "g", "-m u:1234:rw")
    stats = sypy.sync(f"{src}/", f"{dst}/", preserve_acls=True)
    assert stats.files_metadata_updated == 2
    assert (acl(dst / "f"), acl(dst / "g")) == (acl(src / "f"), acl(src / "g"))


def test_access_control_lists_stay_behind_when_not_wanted(src, dst):
    build(src, {"f": "1"})
    set_acl(src / "f", "-m u:1234:rw")
    sypy.sync(f"{src}/", f"{dst}/")
    assert "1234" not in acl(dst / "f")


# Devices, FIFOs and sockets.


def test_special_files_are_left_out_and_never_opened(src, dst):
    build(src, {"a": "1", "pipe": Fifo(), "z": "2"})
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.open(src, os.O_DIRECTORY)
        listener.bind(f"/proc/self/fd/{here}/socket")
        os.close(here)
        stats = sync_in_child(f"{src}/", f"{dst}/", timeout=20)
    assert keys(dst) == {"a", "z"}
    assert stats.success and stats.files_skipped == 2


@pytest.mark.parametrize("options", [{}, {"checksum": True}, {"ignore_times": True}, {"verify": True}])
def test_a_fifo_in_the_way_of_a_file_is_replaced_and_never_opened(src, dst, options):
    build(src, {"f": "content"})
    build(dst, {"f": Fifo()})
    sync_in_child(f"{src}/", f"{dst}/", timeout=20, **options)
    assert text(dst / "f") == "content"


@pytest.mark.parametrize("options", [{}, {"checksum": True}, {"ignore_times": True}, {"verify": True}])
def test_a_fifo_arrives_as_a_fifo(src, dst, options):
    build(src, {"pipe": Fifo(mode=0o640), "f": "1"})
    for _ in range(2):
        sync_in_child(f"{src}/", f"{dst}/", preserve_devices=True, timeout=20, **options)
        assert_same(src, dst)


def test_a_fifo_as_the_source_does_not_hang(src, dst, tmp_path):
    build(src, {"pipe": Fifo()})
    with suppress(sypy.SyncError):
        sync_in_child(src / "pipe", dst, timeout=20, on_error="collect")
    assert not dst.exists()


@pytest.fixture
def devices(tmp_path):
    try:
        os.mknod(tmp_path / "probe", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("devices can't be made here")
    os.remove(tmp_path / "probe")


@pytest.mark.usefixtures("devices")
def test_devices_arrive_when_wanted(src, dst):
    build(src, {"f": "1"})
    os.mknod(src / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(src / "disk", stat.S_IFBLK | 0o660, os.makedev(7, 200))
    for _ in range(2):
        stats = sync_in_child(f"{src}/", f"{dst}/", preserve_devices=True, timeout=20)
        assert_same(src, dst)
    assert (stats.files_created, stats.files_updated) == (0, 0)


@pytest.mark.usefixtures("devices")
def test_a_device_with_another_number_is_replaced(src, dst):
    for root, minor in ((src, 3), (dst, 5)):
        root.mkdir()
        os.mknod(root / "d", stat.S_IFCHR | 0o600, os.makedev(1, minor))
        set_mtime(root / "d", WHEN)
    sync_in_child(f"{src}/", f"{dst}/", preserve_devices=True, timeout=20)
    assert os.stat(dst / "d").st_rdev == os.makedev(1, 3)


@pytest.mark.usefixtures("devices")
def test_devices_are_never_read(src, dst):
    build(src, {"f": "1"})
    os.mknod(src / "endless", stat.S_IFCHR | 0o666, os.makedev(1, 5))
    stats = sync_in_child(f"{src}/", f"{dst}/", checksum=True, timeout=20)
    assert keys(dst) == {"f"} and stats.success


# All of it.


@pytest.mark.usefixtures("xattrs")
def test_archive_keeps_all_that_the_user_may_keep(src, dst):
    build(
        src,
        {
            "f": File("1", mode=0o751, xattrs={"user.a": b"1"}),
            "pipe": Fifo(),
            "d": Dir(mode=0o2755),
            "d/l": Link("../f"),
        },
    )
    os.link(src / "f", src / "d/same")
    set_acl(src / "f", "-m u:1234:rw")
    if os.geteuid() == 0:
        os.chown(src / "d/l", 12, 34, follow_symlinks=False)
        os.chown(src / "f", 12, 34)
    sypy.sync(f"{src}/", f"{dst}/", archive=True)
    look = {"xattrs": True, "hardlinks": True, "owner": os.geteuid() == 0}
    if os.geteuid() == 0:
        assert_same(src, dst, **look)
    assert acl(dst / "f") == acl(src / "f")
    assert snapshot(dst, **look)["d/same"] == snapshot(src, **look)["d/same"]


def test_archive_is_not_an_error_for_those_who_may_not_do_all(src, dst, command):
    build(src, {"f": "1", "d/g": "2"})
    done = run([*with_means(unprivileged=True), *command, "-a", f"{src}/", f"{dst}/"])
    assert done.returncode == 0, done.stderr
    assert_same(src, dst)


@pytest.mark.parametrize("what", ["f", "d"])
def test_a_read_only_directory_is_still_read_only_after_something_went_into_it(sync, src, dst, what):
    build(src, {"f": "1", "d/g": "1"})
    dst.mkdir(mode=0o555)
    done = sync(source=src / what, prefix=with_means(unprivileged=True))
    assert done.returncode in (0, 23), done.stderr
    assert mode(dst) == 0o555
    assert (dst / what).exists() == (done.returncode == 0)
