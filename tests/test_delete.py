"""Deleting what the source does not have: only when asked, only what may go, only when all listings were complete."""

import os
import re
import stat
from pathlib import Path

import pytest

import sypy
from events import changes_of_json
from running import run, sync_unprivileged
from trees import Dir, Link, assert_same, build, keys, snapshot, text


def test_delete_makes_the_destination_a_mirror(src, dst):
    build(src, {"a": "1", "b": "2", "d/c": "3", "d/d": "4"})
    build(dst, {"a": "1", "d/c": "3", "d/gone": "x", "gone": "y", "gone-dir/deep/f": "z", "link": Link("/etc/passwd")})
    stats = sypy.sync(f"{src}/", f"{dst}/", delete=True, delete_threshold=100)
    assert_same(src, dst)
    assert (stats.files_deleted, stats.dirs_deleted) == (4, 2)


def test_a_link_to_a_directory_is_deleted_and_not_what_it_points_to(src, dst, tmp_path):
    build(tmp_path / "precious", {"f": "keep"})
    build(src, {"a": "1"})
    build(dst, {"a": "1", "link": Link(str(tmp_path / "precious"))})
    sypy.sync(f"{src}/", f"{dst}/", delete=True)
    assert keys(dst) == {"a"}
    assert text(tmp_path / "precious/f") == "keep"


def tree_of(n):
    return {f"f{i:03}": str(i) for i in range(n)}


def test_half_of_the_entries_may_go(src, dst):
    build(src, tree_of(5))
    build(dst, tree_of(10))
    assert sypy.sync(f"{src}/", f"{dst}/", delete=True).files_deleted == 5
    assert_same(src, dst)


def test_more_than_half_may_not(src, dst):
    build(src, {**tree_of(4), "new": "copied all the same"})
    build(dst, tree_of(10))
    with pytest.raises(sypy.DeleteLimitError) as refused:
        sypy.sync(f"{src}/", f"{dst}/", delete=True)
    assert keys(dst) == {"new", *tree_of(10)}
    assert "6" in str(refused.value) and "force" in str(refused.value)


def test_directories_count_as_entries(src, dst):
    build(src, {"keep": "1"})
    build(dst, {"keep": "1", "d1/": None, "d2/": None})
    with pytest.raises(sypy.DeleteLimitError):
        sypy.sync(f"{src}/", f"{dst}/", delete=True)
    assert keys(dst) == {"keep", "d1", "d2"}


@pytest.mark.parametrize(("threshold", "allowed"), [(0, False), (29, False), (30, True), (100, True)])
def test_the_threshold_is_a_percentage(src, dst, threshold, allowed):
    build(src, tree_of(7))
    build(dst, tree_of(10))
    if allowed:
        sypy.sync(f"{src}/", f"{dst}/", delete=True, delete_threshold=threshold)
        assert keys(dst) == set(tree_of(7))
    else:
        with pytest.raises(sypy.DeleteLimitError):
            sypy.sync(f"{src}/", f"{dst}/", delete=True, delete_threshold=threshold)
        assert keys(dst) == set(tree_of(10))


def test_nothing_to_delete_is_fine_with_a_threshold_of_nothing(src, dst):
    build(src, tree_of(3))
    assert sypy.sync(f"{src}/", f"{dst}/", delete=True, delete_threshold=0, max_delete=0).success
    assert_same(src, dst)


@pytest.mark.parametrize(("limit", "allowed"), [(0, False), (2, False), (3, True)])
def test_max_delete_is_a_count(src, dst, limit, allowed):
    build(src, tree_of(7))
    build(dst, tree_of(10))
    if allowed:
        sypy.sync(f"{src}/", f"{dst}/", delete=True, max_delete=limit)
        assert keys(dst) == set(tree_of(7))
    else:
        with pytest.raises(sypy.DeleteLimitError):
            sypy.sync(f"{src}/", f"{dst}/", delete=True, max_delete=limit)
        assert keys(dst) == set(tree_of(10))


def test_force_lifts_both_limits(src, dst):
    build(src, tree_of(1))
    build(dst, tree_of(10))
    sypy.sync(f"{src}/", f"{dst}/", delete=True, max_delete=1, force_delete=True)
    assert_same(src, dst)


def test_a_dry_run_refuses_what_the_run_would_refuse(src, dst):
    build(src, tree_of(1))
    build(dst, tree_of(10))
    with pytest.raises(sypy.DeleteLimitError):
        sypy.sync(f"{src}/", f"{dst}/", delete=True, dry_run=True)


def test_an_empty_source_is_refused(src, dst):
    src.mkdir()
    build(dst, {"a": "1"})
    before = snapshot(dst, untouched=True)
    with pytest.raises(sypy.DeleteLimitError, match="empty"):
        sypy.sync(f"{src}/", f"{dst}/", delete=True, delete_threshold=100)
    assert snapshot(dst, untouched=True) == before


def test_an_empty_source_is_no_matter_when_the_destination_is_empty_too(src, dst):
    src.mkdir()
    dst.mkdir()
    assert sypy.sync(f"{src}/", f"{dst}/", delete=True).success


def test_force_empties_the_destination(src, dst):
    src.mkdir()
    build(dst, {"a": "1", "d/b": "2"})
    sypy.sync(f"{src}/", f"{dst}/", delete=True, force_delete=True)
    assert keys(dst) == set()


def test_the_mount_point_of_a_file_system_that_is_not_mounted_is_an_empty_source(src, dst, mount):
    usb = mount("tmpfs", size="1m")
    build(usb, tree_of(3))
    sypy.sync(f"{usb}/", f"{dst}/", delete=True)
    run(["umount", str(usb)])
    with pytest.raises(sypy.DeleteLimitError):
        sypy.sync(f"{usb}/", f"{dst}/", delete=True)
    assert keys(dst) == set(tree_of(3))


def test_the_command_line_says_so_with_exit_code_25(src, dst, command):
    build(src, tree_of(1))
    build(dst, tree_of(10))
    done = run([*command, f"{src}/", f"{dst}/", "--delete"])
    assert done.returncode == 25
    assert "--force-delete" in done.stderr or "force" in done.stderr
    assert keys(dst) == set(tree_of(10))


def test_excluded_files_are_protected(src, dst):
    build(src, {"a": "1", "b": "2", "c": "3"})
    build(dst, {"a": "1", "notes.txt": "mine", "cache/x.txt": "mine", "cache/y": "gone", "gone": "x"})
    sypy.sync(f"{src}/", f"{dst}/", delete=True, exclude=["*.txt"], delete_threshold=100)
    assert keys(dst) == {"a", "b", "c", "notes.txt", "cache", "cache/x.txt"}


def test_everything_below_an_excluded_directory_is_protected(src, dst):
    build(src, {"a": "1", "b": "2", ".venv/lib": "source"})
    build(dst, {"a": "1", ".venv/bin/python": "mine", ".venv/lib": "mine"})
    sypy.sync(f"{src}/", f"{dst}/", delete=True, exclude=[".venv/"])
    assert keys(dst) == {"a", "b", ".venv", ".venv/bin", ".venv/bin/python", ".venv/lib"}
    assert text(dst / ".venv/lib") == "mine"


def test_size_limits_neither_delete_nor_protect(src, dst):
    build(src, {"big": "x" * 1000, "small": "s", "a": "1", "b": "2"})
    build(dst, {"big": "old", "gone": "y" * 1000})
    sypy.sync(f"{src}/", f"{dst}/", delete=True, max_size=100)
    assert keys(dst) == {"big", "small", "a", "b"}
    assert text(dst / "big") == "old"


def test_nothing_is_deleted_when_a_source_directory_cannot_be_listed(src, dst):
    build(src, {"open/a": "1", "closed/b": "2", "new": "3"})
    build(dst, {"open/a": "1", "open/gone": "x", "closed/b": "2", "closed/c": "3", "gone": "y"})
    os.chmod(src / "closed", 0)
    try:
        with pytest.raises(sypy.PartialSyncError) as partial:
            sync_unprivileged(f"{src}/", f"{dst}/", delete=True, delete_threshold=100)
    finally:
        os.chmod(src / "closed", 0o755)
    assert keys(dst) == {"open", "open/a", "open/gone", "closed", "closed/b", "closed/c", "gone", "new"}
    assert partial.value.stats.files_deleted == partial.value.stats.dirs_deleted == 0


def test_nothing_is_deleted_when_a_destination_directory_cannot_be_listed(src, dst):
    build(src, {"a": "1", "closed/b": "2"})
    build(dst, {"gone": "x", "closed/b": "2", "closed/c": "3"})
    os.chmod(dst / "closed", 0)
    try:
        with pytest.raises(sypy.PartialSyncError):
            sync_unprivileged(f"{src}/", f"{dst}/", delete=True, delete_threshold=100, preserve_permissions=False)
    finally:
        os.chmod(dst / "closed", 0o755)
    assert keys(dst) == {"a", "gone", "closed", "closed/b", "closed/c"}


def test_a_read_only_directory_goes(src, dst):
    build(src, {"a": "1", "b": "2", "c": "3"})
    build(dst, {"a": "1", "b": "2", "c": "3", "locked/f": "y", "locked": Dir(mode=0o555)})
    sync_unprivileged(f"{src}/", f"{dst}/", delete=True)
    assert_same(src, dst)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_directory_of_someone_else_that_should_go_is_recorded_and_the_rest_goes(src, dst):
    build(src, {"a": "1", "b": "2", "c": "3"})
    build(dst, {"a": "1", "b": "2", "c": "3", "gone": "x", "locked/f": "y"})
    os.chown(dst / "locked", 1234, 1234)
    with pytest.raises(sypy.PartialSyncError) as partial:
        sync_unprivileged(f"{src}/", f"{dst}/", delete=True)
    assert keys(dst) == {"a", "b", "c", "locked", "locked/f"}
    assert any(error.path and "locked" in os.fsdecode(error.path) for error in partial.value.errors)


# Moving aside instead.


def trash_of(home: Path) -> Path:
    return home / "data" / "Trash"


def test_trash_keeps_what_is_deleted(src, dst, own_environment):
    build(src, {"a": "1", "b": "2", "c": "3"})
    build(dst, {"a": "1", "b": "2", "c": "3", "sub/old name": "precious"})
    stats = sypy.sync(f"{src}/", f"{dst}/", delete=True, trash=True)
    assert keys(dst) == {"a", "b", "c"}
    assert stats.files_deleted == 1
    files = [path for path in trash_of(own_environment).rglob("files/**/*") if path.is_file()]
    assert [path.read_text() for path in files] == ["precious"]


def test_the_trash_can_be_restored_by_any_desktop(src, dst, own_environment):
    build(src, {"a": "1", "b": "2"})
    build(dst, {"a": "1", "b": "2", "old %1 name": "precious"})
    sypy.sync(f"{src}/", f"{dst}/", delete=True, trash=True)
    (info,) = (trash_of(own_environment) / "info").iterdir()
    lines = info.read_text().splitlines()
    assert info.suffix == ".trashinfo" and lines[0] == "[Trash Info]"
    assert f"Path={dst}/old%20%251%20name" in lines
    assert any(re.fullmatch(r"DeletionDate=\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", line) for line in lines)
    assert (trash_of(own_environment) / "files" / info.stem).read_text() == "precious"
    assert stat.S_IMODE(trash_of(own_environment).stat().st_mode) == 0o700


def test_two_files_of_one_name_both_fit_in_the_trash(src, dst, own_environment):
    build(src, {"keep1": "", "keep2": "", "keep3": "", "keep4": "", "x/": None, "y/": None})
    build(dst, {"keep1": "", "keep2": "", "keep3": "", "keep4": "", "x/same": "one", "y/same": "two"})
    sypy.sync(f"{src}/", f"{dst}/", delete=True, trash=True)
    build(dst, {"x/same": "three"})
    sypy.sync(f"{src}/", f"{dst}/", delete=True, trash=True)
    files = [path.read_text() for path in (trash_of(own_environment) / "files").rglob("*") if path.is_file()]
    assert sorted(files) == ["one", "three", "two"]


def dated(backup: Path) -> Path:
    """The one folder below a backup directory; its name is a date."""
    (folder,) = backup.iterdir()
    assert re.match(r"\d{4}-?\d\d-?\d\d", folder.name), folder.name
    return folder


def test_backup_dir_keeps_what_is_replaced(src, dst, tmp_path):
    build(src, {"d/f": "new", "same": "same"})
    build(dst, {"d/f": "old!", "same": "same"})
    stats = sypy.sync(f"{src}/", f"{dst}/", backup_dir=tmp_path / "backup")
    assert stats.files_updated == 1
    assert_same(src, dst)
    folder = dated(tmp_path / "backup")
    assert {key for key in keys(folder) if (folder / key).is_file()} == {"d/f"}
    assert text(folder / "d/f") == "old!"


def test_backup_dir_keeps_what_is_deleted(src, dst, tmp_path):
    build(src, {"a": "1", "b": "2", "c": "3"})
    build(dst, {"a": "1", "b": "2", "c": "3", "d/gone": "precious"})
    sypy.sync(f"{src}/", f"{dst}/", delete=True, backup_dir=tmp_path / "backup")
    assert keys(dst) == {"a", "b", "c"}
    assert text(dated(tmp_path / "backup") / "d/gone") == "precious"


def test_backup_dir_on_another_file_system(src, dst, shm_path):
    build(src, {"f": "new", "a": "1"})
    build(dst, {"f": "old!", "gone": "precious", "a": "1"})
    sypy.sync(f"{src}/", f"{dst}/", delete=True, backup_dir=shm_path / "backup")
    folder = dated(shm_path / "backup")
    assert (text(folder / "f"), text(folder / "gone")) == ("old!", "precious")
    assert_same(src, dst)


def test_backups_of_two_runs_do_not_overwrite_each_other(src, dst, tmp_path):
    build(dst, {"f": "first"})
    build(src, {"f": "second!"})
    sypy.sync(f"{src}/", f"{dst}/", backup_dir=tmp_path / "backup")
    build(src, {"f": "and a third"})
    sypy.sync(f"{src}/", f"{dst}/", backup_dir=tmp_path / "backup")
    kept = [text(tmp_path / "backup" / key) for key in keys(tmp_path / "backup") if key.endswith("/f")]
    assert sorted(kept) == ["first", "second!"]


def test_a_backup_dir_inside_the_destination_survives_the_next_delete(src, dst):
    build(src, {"f": "new", "a": "1", "b": "2"})
    build(dst, {"f": "old!", "a": "1", "b": "2"})
    for _ in range(2):
        sypy.sync(f"{src}/", f"{dst}/", delete=True, delete_threshold=100, backup_dir=dst / ".backup")
    kept = [text(dst / key) for key in keys(dst) if key.startswith(".backup/") and key.endswith("/f")]
    assert kept == ["old!"]


def test_a_dry_run_moves_nothing_aside(src, dst, tmp_path, own_environment):
    build(src, {"a": "new", "b": "2", "c": "3"})
    build(dst, {"a": "1", "b": "2", "c": "3", "gone": "x"})
    sypy.sync(f"{src}/", f"{dst}/", delete=True, dry_run=True, trash=True, backup_dir=tmp_path / "backup")
    assert not (tmp_path / "backup").exists() and not trash_of(own_environment).exists()


@pytest.mark.parametrize("where", ["top of the file system", "home in the destination"])
def test_a_trash_in_the_destination_is_kept(sync, src, mount, monkeypatch, where):
    place = mount("tmpfs", size="1m")
    if where == "home in the destination":
        monkeypatch.setenv("XDG_DATA_HOME", str(place / "home/data"))
    for round_ in range(3):
        build(src, {"a": "1", "b": "2"})
        build(place, {"a": "1", "b": "2", "d/gone": f"precious {round_}"})
        done = sync("--delete", "--force-delete", "--trash", dest=f"{place}/")
        assert done.returncode == 0, done.stderr
    again = sync("--delete", "--force-delete", "--trash", "--json", dest=f"{place}/")
    assert again.returncode == 0 and changes_of_json(again.stdout) == set()
    kept = [text(place / key) for key in keys(place) if "/files/" in key and (place / key).is_file()]
    assert sorted(kept) == ["precious 0", "precious 1", "precious 2"]
    assert not (place / "d").exists()


def test_the_state_directory_is_not_deleted_where_it_lies_in_the_destination(sync, src, dst, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(dst / "home/state"))
    build(src, {"a": "1", "b": "2"})
    build(dst, {"a": "1", "b": "2", "gone": "x"})
    assert sync("-c").returncode == 0
    state = keys(dst)
    for _ in range(2):
        done = sync("--delete", "--force-delete", "-c")
        assert done.returncode == 0, done.stderr
        assert keys(dst) >= state - {"gone"}
    assert not (dst / "gone").exists()
