"""WebDAV and FTP through OpenDAL, on real servers. Needs a build with that feature: `make test-opendal` makes it."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from servers import ENVIRONMENT
from trees import build

BINARY = ENVIRONMENT.get("SY_OPENDAL_BIN")
pytestmark = pytest.mark.skipif(not BINARY, reason="SY_OPENDAL_BIN names no build with the feature opendal")

TREE = {
    "a": "1",
    "d/b b": "22",
    "d/e/ä": "333",
    "d/zero": "",
    "big": os.urandom(5 << 20),
    "empty/": None,
}


def webdav(root: Path, port: int) -> list[str]:
    module = "from wsgidav.server.server_cli import run; run()"
    return [sys.executable, "-c", module, "--host=127.0.0.1", f"--port={port}", f"--root={root}", "--auth=anonymous"]


def ftp(root: Path, port: int) -> list[str]:
    account = ["-w", "-u", "test", "-P", "testsecret"]
    return [sys.executable, "-m", "pyftpdlib", "-i", "127.0.0.1", "-p", str(port), "-d", str(root), *account]


SERVERS = {"webdav": webdav, "ftp": ftp}


@pytest.fixture(params=SERVERS)
def place(request, tmp_path):
    """A server of each kind: the folder that it serves, and the URL of a place in it."""
    root = tmp_path / "served"
    root.mkdir()
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(SERVERS[request.param](root, port), env=ENVIRONMENT, **quiet)
    try:
        for _ in range(600):
            with socket.socket() as s:
                if s.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert process.poll() is None, "the server did not start"
            time.sleep(0.05)
        yield root / "t", f"opendal+{request.param}://127.0.0.1:{port}/t/"
    finally:
        process.terminate()
        process.wait()


@pytest.fixture
def sy(place):
    """Runs the build with OpenDAL; returns exit code and what was printed."""
    _, url = place
    scheme, port = url.split("://")[0].removeprefix("opendal+"), url.split(":")[2].split("/")[0]
    options = {
        "SYPY_OPENDAL_WEBDAV_ENDPOINT": f"http://127.0.0.1:{port}",
        "SYPY_OPENDAL_FTP_USER": "test",
        "SYPY_OPENDAL_FTP_PASSWORD": "testsecret",
    }

    def run(*words, **variables):
        env = os.environ | {name: value for name, value in options.items() if f"_{scheme.upper()}_" in name} | variables
        # It asks for plain HTTP and FTP by name.
        done = subprocess.run(
            [BINARY, *words], env=env | {"AWS_ALLOW_HTTP": "true"}, capture_output=True, text=True, timeout=120
        )
        return done.returncode, done.stdout + done.stderr

    return run


def contents(root):
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and not path.is_symlink()
    }


def test_up_and_down_again(sy, place, src, dst):
    root, url = place
    build(src, TREE)
    # What has only just changed is not remembered as equal.
    time.sleep(0.1)
    assert sy(f"{src}/", url)[0] == 0
    assert contents(root) == contents(src)
    assert (root / "empty").is_dir()
    code, said = sy(f"{src}/", url)
    assert (code, "nothing to do" in said) == (0, True), said
    # The clocks of stores tick in seconds.
    time.sleep(2.2)
    assert sy(url, f"{dst}/")[0] == 0
    assert contents(dst) == contents(src)
    code, said = sy(url, f"{dst}/")
    assert (code, "nothing to do" in said) == (0, True), said


def test_changes_and_deletions(sy, place, src):
    root, url = place
    build(src, TREE)
    assert sy(f"{src}/", url)[0] == 0
    (src / "a").write_text("changed")
    (src / "d/b b").unlink()
    build(src, {"new/x": "x"})
    before = contents(root)
    assert sy("-n", "--delete", f"{src}/", url)[0] == 0
    assert contents(root) == before, "a dry run changes nothing"
    assert sy("--delete", f"{src}/", url)[0] == 0
    assert contents(root) == contents(src)
    assert not [name for _, _, names in os.walk(root) for name in names if name.startswith(".sypy")]


def test_without_what_was_remembered_nothing_is_lost(sy, place, src, tmp_path, monkeypatch):
    root, url = place
    build(src, TREE)
    assert sy(f"{src}/", url)[0] == 0
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "another"))
    assert sy(f"{src}/", url)[0] == 0
    assert contents(root) == contents(src)


@pytest.mark.parametrize("options", [[], ["--max-depth", "2", "-r"], ["-r"]], ids=str)
def test_listings(sy, place, options):
    root, url = place
    build(root, {"a": "1", "d/b b": "22", "d/e/x": "3"})
    two = ["a", "d/", "d/b b", "d/e/"]
    expected = {0: ["a", "d/"], 1: [*two, "d/e/x"], 3: two}[len(options)]
    for place in (url, url[:-1]):
        code, said = sy("ls", *options, place)
        assert (code, said.splitlines()) == (0, expected)
    assert sy("ls", f"{url}d/e/")[1].splitlines() == ["x"]


def test_a_link_is_named_and_the_rest_arrives(sy, place, src):
    root, url = place
    build(src, {"a": "1"})
    (src / "link").symlink_to("a")
    code, said = sy(f"{src}/", url)
    assert code == 23
    assert "link" in said
    assert contents(root) == {"a": b"1"}
    assert sy("--links", "skip", f"{src}/", url)[0] == 0


def test_a_source_that_is_not_there_deletes_nothing(sy, place, dst):
    _, url = place
    build(dst, {"kept": "1"})
    assert sy("--delete", f"{url}nowhere/", f"{dst}/")[0] != 0
    assert contents(dst) == {"kept": b"1"}


@pytest.fixture
def options(place, tmp_path):
    """A file of options that are right for the server, or as changed."""
    _, url = place
    right = {"user": "test", "password": "testsecret"} if "ftp" in url else {"endpoint": f"http://{url.split('/')[2]}"}
    names = iter(range(9))

    def options(**changes):
        path = tmp_path / f"options{next(names)}"
        pairs = [f"{name} = {value}\n" for name, value in (right | changes).items()]
        path.write_text("# what the server wants\n\n" + "".join(pairs))
        return f"--opendal-config={path}"

    return options


# What the environment says is of no use with these.
WRONG = {
    "SYPY_OPENDAL_FTP_USER": "nobody",
    "SYPY_OPENDAL_FTP_PASSWORD": "hunter2",
    "SYPY_OPENDAL_WEBDAV_ENDPOINT": "https://127.0.0.1:9",
}


def test_a_file_of_options_counts_more_than_the_environment(sy, place, src, dst, options):
    root, url = place
    build(src, TREE)
    code, said = sy(options(), f"{src}/", url, **WRONG)
    assert code == 0, said
    assert contents(root) == contents(src)
    assert sy("ls", "-r", options(), url, **WRONG)[0] == 0
    assert sy(options(), url, f"{dst}/", **WRONG)[0] == 0
    assert contents(dst) == contents(src)
    assert sy(url, f"{dst}/", **WRONG)[0] != 0


def test_each_side_may_have_a_file_of_its_own(sy, place, src, options):
    root, url = place
    build(src, {"a": "1"})
    assert sy(f"{src}/", url)[0] == 0
    wrong = options(user="nobody") if "ftp" in url else options(endpoint="http://127.0.0.1:9")
    there, sides = url.replace("/t/", "/copy/"), ["--source-opendal-config", "--dest-opendal-config"]
    for side in sides:
        assert sy(options(), wrong.replace("--opendal-config", side), url, there, **WRONG)[0] != 0
    assert not (root.parent / "copy" / "a").exists()
    code, said = sy(wrong, *[options().replace("--opendal-config", side) for side in sides], url, there, **WRONG)
    assert code == 0, said
    assert (root.parent / "copy" / "a").read_text() == "1"


def test_a_password_that_is_wrong_is_not_shown(sy, place, src, options):
    _, url = place
    if "ftp" not in url:
        pytest.skip("this server asks nobody for a password")
    build(src, {"a": "1"})
    code, said = sy(options(password="hunter2"), f"{src}/", url)
    assert code == 1
    assert "hunter2" not in said


def test_an_option_that_the_service_does_not_have_is_refused(sy, place, src, options):
    _, url = place
    build(src, {"a": "1"})
    code, said = sy(options(bucket="hunter2"), f"{src}/", url)
    assert code == 1
    assert "bucket" in said and "hunter2" not in said
