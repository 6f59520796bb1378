"""Listings: `ls`, `ls_iter` and the command of that name, on local trees and on a bucket."""

import json
import os
import pickle
import subprocess
import threading
import time

import pytest

import running
import sypy
from test_cloud_configs import Bucket, account
from trees import File, Link, build

TREE = {"a/b/deep": "123", "a.txt": "12", "a/c": "1", "b": "", "link": Link("a.txt"), "z/": None}
ALL = ["a.txt", "a", "a/b", "a/b/deep", "a/c", "b", "link", "z"]


@pytest.fixture
def tree(src):
    build(src, {key: value for key, value in TREE.items() if value is not None})
    (src / "z").mkdir()
    return src


@pytest.fixture
def bucket():
    bucket = Bucket(["a.txt", "a/", "a/b/deep", "a/c", "a//odd", "b", "empty/"])
    bucket.names.sort()
    yield bucket
    bucket.server.shutdown()
    bucket.server.server_close()


def paths(entries):
    return [entry.path for entry in entries]


class TestLocal:
    @pytest.mark.parametrize(
        ("options", "found"),
        [
            ({}, ["a.txt", "a", "b", "link", "z"]),
            ({"recursive": True}, ALL),
            ({"recursive": True, "max_depth": 1}, ["a.txt", "a", "b", "link", "z"]),
            ({"recursive": True, "max_depth": 2}, [path for path in ALL if path != "a/b/deep"]),
            ({"recursive": True, "files_only": True}, ["a.txt", "a/b/deep", "a/c", "b", "link"]),
            ({"recursive": True, "dirs_only": True}, ["a", "a/b", "z"]),
        ],
        ids=str,
    )
    def test_entries_come_in_key_order(self, tree, options, found):
        assert paths(sypy.ls(tree, **options)) == found
        assert paths(sypy.ls_iter(f"{tree}/", **options)) == found

    def test_an_entry_says_what_is_known(self, tree):
        build(tree, {"holes": File("x", mtime_ns=1_600_000_000_123_456_789)})
        os.truncate(tree / "holes", 1 << 20)
        os.utime(tree / "holes", ns=(0, 1_600_000_000_123_456_789))
        entries = {entry.path: entry for entry in sypy.ls(tree)}
        holes, state = entries["holes"], (tree / "holes").stat()
        assert (holes.size, holes.mod_time) == (1 << 20, "2020-09-13T12:26:40.123456789Z")
        assert (holes.inode, holes.num_links, holes.allocated_size) == (state.st_ino, 1, state.st_blocks * 512)
        assert (holes.is_sparse, holes.is_dir, holes.entry_type, holes.mime_type) == (True, False, "file", None)
        assert (entries["link"].entry_type, entries["link"].symlink_target) == ("symlink", "a.txt")
        assert (entries["a"].is_dir, entries["a"].entry_type) == (True, "directory")
        assert entries["a.txt"].mime_type == entries["a.txt"].to_dict()["mime_type"] == "text/plain"

    def test_entries_are_values(self, tree):
        for entry in sypy.ls(tree, recursive=True):
            assert pickle.loads(pickle.dumps(entry)) == entry
            assert repr(entry).startswith(f"ListEntry(path={entry.path!r}, size=")
        assert sypy.ListEntry("a", 1) != sypy.ListEntry("a", 2)

    def test_a_file_lists_itself(self, tree):
        assert paths(sypy.ls(tree / "a/c")) == ["c"]
        assert paths(sypy.ls(tree / "link")) == ["link"]
        with pytest.raises(sypy.SyncError, match="Not a directory"):
            sypy.ls(f"{tree}/b/")

    def test_what_is_not_there_is_an_error(self, tree):
        with pytest.raises(FileNotFoundError):
            sypy.ls(tree / "none")
        with pytest.raises(FileNotFoundError):
            next(sypy.ls_iter(tree / "none"))

    @pytest.mark.parametrize(
        "options", [{"max_depth": 2}, {"recursive": True, "max_depth": 0}, {"files_only": True, "dirs_only": True}]
    )
    def test_options_that_make_no_sense_are_errors(self, tree, options):
        for function in (sypy.ls, sypy.ls_iter):
            with pytest.raises(ValueError, match="max_depth|exclude"):
                function(tree, **options)

    def test_names_of_any_bytes(self, src):
        build(src, {b"caf\xe9": "1", "new\nline": "1"})
        assert [os.fsencode(path) for path in paths(sypy.ls(src))] == [b"caf\xe9", b"new\nline"]

    def test_a_deep_tree_needs_no_more_open_files_than_a_flat_one(self, src):
        deep = src
        for _ in range(200):
            deep = deep / "d"
        deep.mkdir(parents=True)
        code = f"import sypy; print(len(sypy.ls({str(src)!r}, recursive=True)))"
        done = running.run([*running.with_means(nofile=40), running.PYTHON_CLI[0], "-c", code])
        assert done.stdout == "200\n", done.stderr

    def test_an_iterator_can_be_left(self, tree):
        entries = sypy.ls_iter(tree, recursive=True)
        assert next(entries).path == "a.txt"
        entries.close()
        assert list(entries) == []
        next(sypy.ls_iter(tree))  # Dropped with entries to come.
        before = threading.active_count()
        assert threading.active_count() == before


class TestBucket:
    def test_one_level_is_asked_for_one_level(self, bucket):
        config = account(bucket, "one")
        assert paths(sypy.ls("s3://b", s3=config)) == ["a.txt", "a", "b", "empty"]
        assert len(bucket.queries) == 1
        assert "delimiter" in bucket.queries[0]
        assert paths(sypy.ls("s3://b/a/", s3=config)) == ["/odd", "b", "c"]
        assert paths(sypy.ls("s3://b/a", s3=config)) == ["/odd", "b", "c"]

    def test_all_of_it_is_one_listing(self, bucket):
        found = paths(sypy.ls("s3://b", recursive=True, s3=account(bucket, "one")))
        assert found == ["a.txt", "a", "a//odd", "a/b", "a/b/deep", "a/c", "b", "empty"]
        assert len(bucket.queries) == 1
        assert "delimiter" not in bucket.queries[0]
        limited = sypy.ls("s3://b", recursive=True, max_depth=3, s3=account(bucket, "one"))
        assert paths(limited) == found

    def test_an_object_lists_itself(self, bucket):
        entry = sypy.ls("s3://b/a/c", s3=account(bucket, "one"))[0]
        assert (entry.path, entry.size, entry.mod_time) == ("c", 3, "2026-11-24T10:00:00Z")
        assert (entry.inode, entry.allocated_size, entry.num_links, entry.is_sparse) == (None, None, None, False)

    def test_a_directory_that_only_an_object_stands_for_is_there(self, bucket):
        bucket.names.remove("a/")
        assert sypy.ls("s3://b/empty/", s3=account(bucket, "one")) == []
        with pytest.raises(sypy.NotFoundError, match="s3://b/none"):
            sypy.ls("s3://b/none", s3=account(bucket, "one"))


class TestCommandLine:
    def test_one_entry_a_line(self, command, tree):
        (tree / "esc\x1b[31m").touch()
        done = running.run([*command, "ls", tree])
        assert done.stdout.splitlines() == ["a.txt", "a/", "b", "esc\\u{1b}[31m", "link -> a.txt", "z/"]
        done = running.run([*command, "ls", "-rl", "--files-only", f"{tree}/a"])
        assert [line.split()[::2] for line in done.stdout.splitlines()] == [["3", "b/deep"], ["1", "c"]]
        assert done.returncode == 0

    def test_json(self, command, tree):
        done = running.run([*command, "ls", "--json", "-r", tree])
        entries = [json.loads(line) for line in done.stdout.splitlines()]
        assert [entry["path"] for entry in entries] == ALL
        assert entries[0].items() >= {"event": "entry", "type": "file", "size": 2, "symlink_target": None}.items()

    def test_exit_codes(self, command, tree):
        assert running.run([*command, "ls", tree / "none"]).returncode == 1
        (tree / "a").chmod(0)
        done = running.run([*running.with_means(unprivileged=True), *command, "ls", "-r", tree])
        assert done.returncode == 23
        assert "z/" in done.stdout.splitlines()
        assert "Permission denied" in done.stderr

    def test_a_reader_who_went_away_ends_it(self, command, tree):
        for n in range(3000):
            (tree / f"{n:0200}").touch()
        with running.started([*command, "ls", tree]) as process:
            process.stdout.read(10)
            process.stdout.close()
            assert process.wait(timeout=30) == 141
            process.stdout = subprocess.DEVNULL
            process.stdout = open(os.devnull, "rb")  # noqa: SIM115

    def test_a_directory_called_ls_can_be_synced(self, command, tree, dst):
        (tree / "ls").mkdir()
        (tree / "ls/x").touch()
        assert running.run([*command, "./ls", dst], cwd=tree).returncode == 0
        assert running.run([*command, "-q", "ls", dst], cwd=tree).returncode == 0
        assert (dst / "ls/x").exists()


def test_an_interrupt_ends_a_listing(bucket):
    # A server that never answers.
    class Silent(Bucket):
        def page(self, query):
            time.sleep(30)
            return ""

    silent = Silent([])
    code = (
        "import _thread, threading, sypy\n"
        "threading.Timer(0.5, _thread.interrupt_main).start()\n"
        f"c = sypy.S3Config(anonymous=True, endpoint={silent.url!r}, client_options=sypy.CloudClientOptions(allow_http=True))\n"
        "try:\n    sypy.ls('s3://b/', s3=c)\nexcept KeyboardInterrupt:\n    print('stopped')\n"
    )
    began = time.monotonic()
    done = running.run([running.PYTHON_CLI[0], "-c", code])
    assert done.stdout == "stopped\n", done.stderr
    assert time.monotonic() - began < 10
    silent.server.shutdown()
