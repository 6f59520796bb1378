"""What is private at the source is never readable by others at the destination, not even for a moment."""

import os
import re
import stat
import time

import pytest

from running import run, started, with_means
from trees import Dir, File, build, snapshot

OTHERS = 0o077


def modes_while_running(process, root, owner=None) -> set[tuple[str, int]]:
    """Every name below `root` with every mode it was ever seen to have, before it belonged to `owner` if one is given."""
    seen = set()
    while process.poll() is None:
        for folder, folders, files in os.walk(root):
            for name in folders + files:
                try:
                    info = os.lstat(os.path.join(folder, name))
                except FileNotFoundError:
                    continue
                if info.st_uid != owner:
                    seen.add((name, stat.S_IMODE(info.st_mode)))
        time.sleep(0.002)
    return seen


@pytest.mark.parametrize("umask", [0o000, 0o022])
@pytest.mark.parametrize("before", [None, 0o644])
def test_a_private_file_is_private_from_the_first_byte(src, dst, command, umask, before):
    build(src, {"private": File(os.urandom(600_000), mode=0o600)})
    build(dst, {} if before is None else {"private": File("old and public", mode=before)})
    with started([*with_means(umask=umask), *command, f"{src}/", f"{dst}/", "--bwlimit", "500KB"]) as process:
        seen = modes_while_running(process, dst)
        assert process.returncode == 0, process.stderr.read()
    open_to_others = {(name, oct(mode)) for name, mode in seen if mode & OTHERS}
    assert open_to_others <= ({("private", "0o644")} if before else set())
    assert snapshot(dst)["private"]["mode"] == "0o600"
    assert any(name.startswith(".sypy-") for name, _ in seen), "the copy was too quick to be watched"


def test_public_files_in_a_private_directory_are_private(src, dst, command):
    build(src, {"private": Dir(mode=0o700), "private/f": File(os.urandom(600_000), mode=0o644)})
    with started([*with_means(umask=0), *command, f"{src}/", f"{dst}/", "--bwlimit", "500KB"]) as process:
        seen = modes_while_running(process, dst)
        assert process.returncode == 0, process.stderr.read()
    assert not {(name, oct(mode)) for name, mode in seen if name == "private" and mode & OTHERS}


@pytest.mark.parametrize("options", [[], ["--no-perms"], ["-X"], ["--verify"], ["--no-resume"]], ids=" ".join)
def test_nothing_is_ever_created_open_to_others(src, dst, sy_binary, strace, tmp_path, options):
    build(src, {"f": File("1", mode=0o600), "d": Dir(mode=0o700), "d/g": File(os.urandom(300_000), mode=0o600)})
    dst.mkdir()
    log = tmp_path / "log"
    prefix = [
        *with_means(umask=0o077 if "--no-perms" in options else 0),
        *strace("trace=?open,openat,?mkdir,mkdirat,?creat", log=log),
    ]
    done = run([*prefix, "-y", sy_binary, f"{src}/", f"{dst}/", *options])
    assert done.returncode == 0, done.stderr
    made = [
        line for line in log.read_text().splitlines() if str(dst) in line and ("O_CREAT" in line or "O_TMPFILE" in line)
    ]
    assert made
    for line in made:
        mode = re.search(r", 0(\d+)(\) = | <unfinished)", line)
        assert mode and not int(mode[1], 8) & OTHERS & ~(OTHERS if "--no-perms" in options else 0), line


def test_a_file_that_belongs_to_someone_else_is_private_until_it_does(src, dst, command):
    if os.geteuid() != 0:
        pytest.skip("needs root")
    build(src, {"f": File(os.urandom(600_000), mode=0o640)})
    os.chown(src / "f", 1234, 5678)
    with started([*with_means(umask=0), *command, "-o", f"{src}/", f"{dst}/", "--bwlimit", "500KB"]) as process:
        seen = modes_while_running(process, dst, owner=1234)
        assert process.returncode == 0, process.stderr.read()
    assert not {(name, oct(mode)) for name, mode in seen if mode & OTHERS}
    assert (os.stat(dst / "f").st_uid, stat.S_IMODE(os.stat(dst / "f").st_mode)) == (1234, 0o640)
