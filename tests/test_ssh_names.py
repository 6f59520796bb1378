"""What a location on a host means, and names that are hard to carry."""

import os

import pytest

import running
import sypy
from ssh_host import host, own_host, way
from sshd import HOST
from trees import File, Link, assert_same, build, keys, leftovers

__all__ = ["host", "own_host", "way"]

ODD = [
    "new\nline", "-rf", "--delete", "*", "?", "[a]", "'quote'", '"double"', "back\\slash", "$HOME", "$(id)", "`id`", "a b", " ",
    "~", "~root", "tab\t", "\x1b[31m", "ü", "\udcff\udcfe", "a" * 255, ";", "#", "%41", "a:b", "..a", "...", ".hidden", "&", "|", "\x7f",
]  # fmt: skip


def test_any_name_goes_both_ways(way, src, dst):
    build(src, {name: name.encode(errors="surrogateescape") for name in ODD} | {"d\n/": None, "d\n/-x\udc80": "x"})
    for number, name in enumerate(ODD[:12]):
        os.symlink(name, os.path.join(src, f"link{number}"))
    way(f"{src}/", f"{dst}/").raise_for_errors()
    assert_same(src, dst)
    assert way.changes(f"{src}/", f"{dst}/") == set()
    for name in os.listdir(src):
        if not os.path.isdir(os.path.join(src, name)):
            os.unlink(os.path.join(src, name))
    way(f"{src}/", f"{dst}/", delete=True, force_delete=True).raise_for_errors()
    assert_same(src, dst)


@pytest.mark.parametrize("name", [name for name in ODD if not name.startswith("\udcff")])
def test_any_name_may_be_the_root(host, tmp_path, name):
    build(tmp_path / "src", {f"{name}/f": "f"})
    for where in [f"{tmp_path}/dst/{name}/", f"{tmp_path}/dst/{name}/again/"]:
        sypy.sync(f"{tmp_path}/src/{name}/", f"{HOST}:{where}", ssh=host.config).raise_for_errors()
        assert_same(f"{tmp_path}/src/{name}", where)
    sypy.sync(f"{HOST}:{tmp_path}/dst/{name}/f", f"{tmp_path}/back", ssh=host.config).raise_for_errors()
    assert (tmp_path / "back").read_text() == "f"


def test_a_path_may_be_long(way, src, dst):
    deep = "/".join(["d" * 200] * 30)
    build(src, {f"{deep}/f": "f"})
    way(f"{src}/", f"{dst}/").raise_for_errors()
    assert_same(src, dst)


def test_single_files_and_slashes_mean_what_they_do_locally(way, src, dst):
    build(src, {"a": "a", "d/b": "b", "big": os.urandom(300_000)})
    dst.mkdir()
    way(src / "a", dst / "renamed").raise_for_errors()
    way(src / "a", f"{dst}/").raise_for_errors()
    way(src / "big", dst / "other").raise_for_errors()
    way(src / "d", dst).raise_for_errors()
    way(f"{src}/d/", dst / "contents").raise_for_errors()
    way(src / "a", f"{dst}/made/deep/").raise_for_errors()
    assert keys(dst) == {
        "renamed", "a", "other", "d", "d/b", "contents", "contents/b", "made", "made/deep", "made/deep/a",
    }  # fmt: skip
    assert (dst / "other").read_bytes() == (src / "big").read_bytes()
    with pytest.raises(sypy.NotFoundError):
        way(src / "missing", f"{dst}/")
    with pytest.raises(sypy.AlreadyExistsError):
        way(f"{src}/", dst / "a")
    (src / "l").symlink_to("a")
    way(src / "l", dst / "l").raise_for_errors()
    assert os.readlink(dst / "l") == "a"


def test_a_single_file_is_updated_and_then_left_alone(way, src, dst):
    build(src, {"a": os.urandom(400_000)})
    build(dst, {"a": File(b"old" * 100_000, mtime_ns=5), "other": "other"})
    assert way.changes(src / "a", dst / "a", dry_run=True) == way.changes(src / "a", dst / "a") == {("a", "update")}
    assert way.changes(src / "a", f"{dst}/") == set()
    assert (dst / "a").read_bytes() == (src / "a").read_bytes() and (dst / "other").exists()


def test_paths_may_begin_at_home(own_host, sy_binary, src, tmp_path):
    host = own_host(agent=sy_binary)
    build(src, {"a": "a"})
    ways = {f"{HOST}:rel/path/": "rel/path", f"{HOST}:~/tilde": "tilde/src", f"ssh://{HOST}/~/url/": "url"}
    for to, where in ways.items():
        source = src if where.endswith("src") else f"{src}/"
        sypy.sync(source, to, ssh=host.config).raise_for_errors()
        assert (host.home / where / "a").read_text() == "a", to
    sypy.sync(f"{HOST}:rel/", f"{tmp_path}/back/", ssh=host.config).raise_for_errors()
    assert keys(tmp_path / "back") == {"path", "path/a"}
    sypy.sync(f"{HOST}:", f"{tmp_path}/all/", ssh=host.config, exclude=[".*"]).raise_for_errors()
    assert {"rel", "tilde", "url"} <= keys(tmp_path / "all")


def test_names_that_only_look_like_hosts_are_local(sy_binary, src, tmp_path):
    build(src, {"a": "a"})
    running.run([sy_binary, f"{src}/", "./host:dir/"], cwd=tmp_path)
    assert (tmp_path / "host:dir/a").read_text() == "a"


def test_the_command_line_goes_there_and_back(host, sy_binary, src, dst, tmp_path):
    build(src, {"a": "a", "d/b": os.urandom(200_000), "l": Link("a")})
    (program,), env = host.cli(sy_binary)
    done = running.run([program, f"{src}/", f"{HOST}:{dst}/"], env=env)
    assert done.returncode == 0, done.stderr
    assert_same(src, dst)
    done = running.run([program, f"{HOST}:{dst}/", f"{tmp_path}/back/", "--json"], env=env)
    assert running.outcome_of(done.returncode, done.stdout, done.stderr).done().stats["files_created"] == 3
    assert_same(src, tmp_path / "back")
    assert leftovers(dst) == []
    done = running.run([program, f"{HOST}:{dst}/missing/", f"{tmp_path}/back/"], env=env)
    assert done.returncode != 0 and f"{HOST}:{dst}/missing" in done.stderr


def test_what_is_on_a_host_is_listed(host, src):
    build(src, {"a": "abc", "d/b": "b", "l": Link("a")})
    entries = {os.fspath(e.path): e for e in sypy.ls(host.url(f"{src}/"), recursive=True, ssh=host.config)}
    assert set(entries) == {"a", "d", "d/b", "l"} and entries["a"].size == 3
