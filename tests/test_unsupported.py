"""What can't be done is said before anything is written, never ignored."""

import datetime
import io

import pytest

import sypy
from running import run
from trees import File, build, keys

UNSUPPORTED = [{"compress": True}, {"daemon_auto": True}, {"bidirectional": True}]
WRONG = [
    {"delete_threshold": 101},
    {"delete_threshold": -1},
    {"max_delete": -1},
    {"max_errors": -1},
    {"parallel": 0},
    {"parallel": -1},
    {"retry": -1},
    {"retry_delay": -1},
    {"links": "sometimes"},
    {"conflict_resolve": "coin"},
    {"on_error": "ignore"},
    {"min_size": "1 parsec"},
    {"max_size": -1},
    {"max_size": "MB"},
    {"min_age": "soon"},
    {"max_age": -5},
    {"max_age": datetime.timedelta(seconds=-1)},
    {"bwlimit": "fast"},
    {"bwlimit": 0},
    {"timeout": -1},
    {"filter": ["what is this"]},
    {"min_size": 100, "max_size": 10},
    {"unsafe_links": True},
]


@pytest.mark.parametrize("option", UNSUPPORTED, ids=str)
def test_an_option_that_means_nothing_here_is_an_error(src, dst, option):
    build(src, {"a": "1"})
    with pytest.raises(sypy.UnsupportedError) as unsupported:
        sypy.sync(f"{src}/", f"{dst}/", **option)
    assert isinstance(unsupported.value, io.UnsupportedOperation)
    assert next(iter(option)) in str(unsupported.value)
    assert not dst.exists()


@pytest.mark.parametrize("option", WRONG, ids=str)
def test_a_wrong_value_is_an_error(src, dst, option):
    build(src, {"a": "1"})
    with pytest.raises(sypy.ConfigError) as wrong:
        sypy.sync(f"{src}/", f"{dst}/", **option)
    assert isinstance(wrong.value, ValueError)
    assert next(iter(option)) in str(wrong.value)
    assert not dst.exists()


@pytest.mark.parametrize(
    "option", [{"trash": True, "delete": True}, {"preserve_xattrs": True}, {"preserve_acls": True}], ids=str
)
def test_what_an_object_store_can_not_keep_is_an_error(src, option):
    build(src, {"a": "1"})
    # Nobody is there: it is said before anything is asked.
    config = sypy.S3Config(access_key_id="a", secret_access_key="b", endpoint="https://127.0.0.1:1")
    with pytest.raises(sypy.UnsupportedError):
        sypy.sync(f"{src}/", "s3://bucket/key/", s3=config, **option)


def test_an_unknown_kind_of_url_is_an_error(src):
    build(src, {"a": "1"})
    with pytest.raises(sypy.SyncError, match="gopher"):
        sypy.sync(f"{src}/", "gopher://host/path")


@pytest.mark.parametrize("empty", ["", b""])
def test_an_empty_path_is_an_error(src, empty):
    build(src, {"a": "1"})
    for source, dest in ((f"{src}/", empty), (empty, f"{src}/")):
        with pytest.raises(sypy.ConfigError):
            sypy.sync(source, dest)


def test_a_nul_in_a_path_is_an_error(src):
    build(src, {"a": "1"})
    with pytest.raises(ValueError, match=r"NUL|null"):
        sypy.sync(f"{src}/", f"{src}/a\0b")


def test_extended_attributes_where_there_are_none(src, mount):
    build(src, {"f": File("1", xattrs={"user.tag": b"blue"})})
    place = mount("ramfs")
    with pytest.raises(sypy.UnsupportedError, match=r"xattr|extended attribute"):
        sypy.sync(f"{src}/", f"{place}/", preserve_xattrs=True)
    assert keys(place) == set()


@pytest.mark.parametrize(
    "flags",
    [
        ["--min-size=100", "--max-size=10"],
        ["--size-only", "--ignore-times"],
        ["--unsafe-links"],
        ["--links=follow", "--remove-source-files"],
        ["--daemon-auto"],
        ["--delete", "--delete-threshold=1"],
        ["--delete", "--delete-threshold=100", "--max-delete=0"],
        ["--backup-dir=."],
    ],
    ids=lambda flags: flags[-1],
)
def test_the_command_line_names_options_by_what_was_typed(src, dst, command, flags):
    build(src, {"a": "1"})
    build(dst, {"b": "2"})
    done = run([*command, f"{src}/", f"{dst}/", *flags])
    assert done.returncode not in (0, 2), done.stderr
    for flag in flags:
        if flag != "--delete" and "threshold=100" not in flag:
            assert flag.split("=")[0] in done.stderr
