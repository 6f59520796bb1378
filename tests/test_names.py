"""Names of every kind arrive byte for byte, and none of them can speak to the terminal."""

import os

import pytest

import sypy
from events import Recorder
from running import run, sync_unprivileged
from trees import Link, assert_same, build, keys, leftovers, opened, snapshot, text

NASTY = {
    "newline": b"two\nlines",
    "carriage return": b"a\rb",
    "escape sequence": b"\x1b[31mred\x1b]0;title\x07",
    "bell and backspace": b"\x07\x08\x7f",
    "leading dash": b"-rf",
    "two dashes": b"--delete",
    "leading space": b" name",
    "trailing space": b"name ",
    "trailing dot": b"name.",
    "three dots": b"...",
    "two dots and more": b"..name",
    "not UTF-8": b"caf\xe9\xff\xfe",
    "broken UTF-8": b"\xe2\x82 \xed\xa0\x80 \xc0\xaf",
    "nothing but 0xff": b"\xff" * 9,
    "255 bytes": b"n" * 255,
    "255 bytes of two-byte letters": "é".encode() * 127 + b"x",
    "250 bytes": b"m" * 250,
    "backslash": b"a\\b",
    "quotes": b"'\"`$(touch x);*?[a]{b}",
    "tilde": b"~",
    "hash": b"# not a comment",
    "colon": b"host:path",
    "like a URL": b"s3:",
    "percent": b"%2e%2e%2f",
    "both Unicode forms": "cafe\u0301 café".encode(),
    "right to left": "\u202egnp.exe".encode(),
    "emoji": "🎉".encode(),
    "tab": b"a\tb",
    "the letter case": b"README",
    "the other case": b"readme",
    "a temporary name of rsync": b".name.a1B2c3",
    "nearly ours": b".sypy",
}


@pytest.mark.parametrize("name", NASTY.values(), ids=NASTY.keys())
def test_a_nasty_name_arrives(src, dst, name):
    build(src, {name: "file", b"dir/" + name + b"/" + name: "deeper", b"links/" + name: Link(name)})
    sypy.sync(f"{src}/", f"{dst}/")
    assert_same(src, dst)
    again = sypy.sync(f"{src}/", f"{dst}/", delete=True, checksum=True)
    assert (again.files_created, again.files_updated, again.files_deleted) == (0, 0, 0)


def test_all_nasty_names_together_arrive_and_go(src, dst):
    build(src, {name: str(number) for number, name in enumerate(NASTY.values())})
    stats = sypy.sync(f"{src}/", f"{dst}/")
    assert stats.files_created == len(NASTY)
    assert_same(src, dst)
    for name in NASTY.values():
        os.remove(os.fsencode(src) + b"/" + name)
    (src / "left").touch()
    assert sypy.sync(f"{src}/", f"{dst}/", delete=True, force_delete=True).files_deleted == len(NASTY)
    assert keys(dst) == {"left"}


@pytest.mark.parametrize("name", NASTY.values(), ids=NASTY.keys())
def test_a_root_may_have_a_nasty_name(tmp_path, name):
    source, dest = os.fsencode(tmp_path) + b"/s/" + name, os.fsencode(tmp_path) + b"/d/" + name
    build(source, {"a": "1"})
    sypy.sync(source + b"/", dest + b"/")
    assert_same(source, dest)


def test_python_sees_surrogates_where_a_name_is_not_utf8(src, dst):
    build(src, {b"caf\xe9": "1"})
    recorder = Recorder()
    sypy.sync(f"{src}/", f"{dst}/", on_event=recorder)
    assert recorder.changes == {("caf\udce9", "create")}
    assert os.fsencode("caf\udce9") == b"caf\xe9"


def test_the_path_of_an_error_leads_to_the_file(src, dst):
    build(src, {b"caf\xe9": "1", "other": "2"})
    os.chmod(os.fsencode(src) + b"/caf\xe9", 0)
    stats = sync_unprivileged(f"{src}/", f"{dst}/", on_error="collect")
    (error,) = stats.errors
    assert os.fsencode(error.path).endswith(b"caf\xe9")


@pytest.mark.parametrize(
    "form", [["-n"], ["-n", "-v"], ["-v"], ["-v", "-i"], ["--json"], ["-n", "--json"], ["--stats"]], ids=" ".join
)
def test_names_are_never_printed_raw(src, dst, command, form):
    names = [
        b"\x1b[31mred",
        b"two\nlines",
        b"bell\x07",
        b"\x9b31m",
        "\u202egnp.exe".encode(),
        b"cr\rx",
        b"caf\xff",
        "\x9d0;t".encode(),
    ]
    build(src, dict.fromkeys(names, "1"))
    build(dst, {name + b"-gone": "1" for name in names})
    done = run([*command, *form, f"{src}/", f"{dst}/", "--delete", "--force-delete"])
    assert done.returncode == 0, done.stderr
    for raw in ("\x1b", "\x07", "\x9b", "\u202e", "\x9d", "two\nlines", "cr\rx", "\udcff", "\udc9b"):
        assert raw not in done.stdout + done.stderr, repr(done.stdout)


def test_names_in_errors_are_never_printed_raw(src, dst, command):
    from running import with_means

    build(src, {b"\x1b[31mred\ntwo": "1"})
    os.chmod(src / "\x1b[31mred\ntwo", 0)
    done = run([*with_means(unprivileged=True), *command, f"{src}/", f"{dst}/"])
    assert done.returncode == 23
    assert "\x1b" not in done.stderr and "red\ntwo" not in done.stderr
    assert "red" in done.stderr


def test_a_missing_source_is_never_printed_raw(tmp_path, command):
    done = run([*command, f"{tmp_path}/\x1b[31mnot\nhere/", f"{tmp_path}/dst/"])
    assert done.returncode != 0
    assert "\x1b" not in done.stdout + done.stderr and "not\nhere" not in done.stderr


def test_leading_dashes_after_two_dashes(src, dst, command, monkeypatch):
    build(src, {"-n/--delete": "1"})
    monkeypatch.chdir(src)
    done = run([*command, "--", "-n/", f"{dst}/"])
    assert done.returncode == 0, done.stderr
    assert keys(dst) == {"--delete"}


# Paths longer than any system call takes.

LONG = "/".join(["d" * 200] * 30)


def test_paths_beyond_path_max_arrive(src, dst):
    build(src, {f"{LONG}/f": "deep", f"{LONG}/l": Link("f"), "a": "1"})
    stats = sypy.sync(f"{src}/", f"{dst}/")
    assert stats.files_created == 3
    assert_same(src, dst)
    again = sypy.sync(f"{src}/", f"{dst}/", delete=True, checksum=True)
    assert (again.files_created, again.files_updated, again.files_deleted) == (0, 0, 0)


def test_paths_beyond_path_max_are_updated_and_deleted(src, dst):
    build(src, {f"{LONG}/f": "new content", "a": "1"})
    build(dst, {f"{LONG}/f": "old", f"{LONG}/gone/{LONG}/x": "1"})
    sypy.sync(f"{src}/", f"{dst}/", delete=True, force_delete=True)
    assert_same(src, dst)


def test_very_deep_trees_arrive_with_few_open_files(src, dst):
    from running import sync_in_child

    deep = "/".join(["d"] * 500)
    build(src, {f"{deep}/f": "1"})
    sync_in_child(f"{src}/", f"{dst}/", means={"nofile": 128})
    with opened(deep, dir_fd=os.open(dst, os.O_DIRECTORY)) as bottom:
        assert os.listdir(bottom) == ["f"]


def test_a_name_of_255_bytes_leaves_room_for_no_suffix(src, dst):
    name = "x" * 255
    build(src, {name: "new content", f"d/{name}": "1"})
    build(dst, {name: "old"})
    sypy.sync(f"{src}/", f"{dst}/")
    assert text(dst / name) == "new content"
    assert not leftovers(dst)


def test_names_alike_but_for_case_or_form_stay_apart(src, dst):
    build(src, {"A": "1", "a": "2", "caf\u00e9": "3", "cafe\u0301": "4", "\u212b": "5", "\u00c5": "6"})
    sypy.sync(f"{src}/", f"{dst}/")
    assert len(snapshot(dst)) == 7
    assert_same(src, dst)


def nested(root, depth: int) -> None:
    """Directories within directories, and a file at the bottom."""
    root.mkdir(parents=True)
    fd = os.open(root, os.O_DIRECTORY)
    for _ in range(depth):
        os.mkdir("d", dir_fd=fd)
        inner = os.open("d", os.O_DIRECTORY, dir_fd=fd)
        os.close(fd)
        fd = inner
    os.close(os.open("f", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
    os.close(fd)


def opens(log) -> int:
    """From the table of `strace -c`: how many files and directories were opened."""
    rows = [line.split() for line in log.read_text().splitlines()]
    return sum(int(row[3]) for row in rows if row and row[-1] in ("openat", "openat2"))


def test_twice_the_depth_is_twice_the_work(sync, strace, shm_path, tmp_path):
    count = {}
    for depth in (1500, 3000):
        source, dest = shm_path / f"src-{depth}", shm_path / f"dst-{depth}"
        nested(source, depth)
        for what in ("copy", "nothing", "delete"):
            if what == "delete":
                run(["rm", "-rf", source / "d"])
                (source / "f").touch()
            options = ["--delete", "--force-delete"] if what == "delete" else []
            counting = [*strace("trace=openat,openat2", log=tmp_path / "log"), "-c"]
            done = sync(*options, source=f"{source}/", dest=f"{dest}/", prefix=counting, timeout=120)
            assert done.returncode == 0, done.stderr
            count[what, depth] = opens(tmp_path / "log")
    for what in ("copy", "nothing", "delete"):
        assert 0 < count[what, 3000] < 3 * count[what, 1500], count
