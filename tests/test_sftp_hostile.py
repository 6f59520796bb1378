"""SFTP servers that lie: nothing outside the destination is touched, nothing is deleted, and the run ends with an error."""

import os
import sys
from pathlib import Path

import pytest

import sypy
from sshd import own_sshd
from test_sftp import of
from trees import build, keys, leftovers

__all__ = ["own_sshd"]
SERVER = Path(__file__).resolve().parent / "hostile_sftp.py"


@pytest.fixture
def lying(own_sshd, src):
    """A host that lies about the source: `lying("up")`."""
    build(src, {"a": "content", "d/b": "more", "l": "x"})

    def lying(how: str):
        return own_sshd(subsystem=f"{sys.executable} {SERVER} {how} {src}")

    return lying


def test_the_liar_tells_the_truth_if_told_to(lying, src, dst):
    server = lying("honest")
    sypy.sync(server.url(f"{src}/"), f"{dst}/", ssh=server.config)
    assert (dst / "d/b").read_text() == "more"


@pytest.mark.parametrize("how", ["dotdot", "up", "absolute", "slash", "empty", "nul"])
def test_names_that_lead_elsewhere_end_the_run(lying, src, dst, tmp_path, how):
    server = lying(how)
    build(dst, {"extra": "kept"})
    with pytest.raises(sypy.SyncError, match="no directory can have"):
        sypy.sync(server.url(f"{src}/"), f"{dst}/", ssh=server.config, delete=True, force_delete=True)
    assert keys(dst) == {"extra"} and not (tmp_path / "escaped").exists() and not Path("/tmp/escaped").exists()


@pytest.mark.parametrize("how", ["wrong-id", "huge-count"])
def test_answers_that_make_no_sense_end_the_run(lying, src, dst, how):
    server = lying(how)
    build(dst, {"extra": "kept"})
    with pytest.raises(sypy.SyncError, match="not SFTP"):
        sypy.sync(server.url(f"{src}/"), f"{dst}/", ssh=server.config, delete=True, force_delete=True)
    assert keys(dst) == {"extra"}


@pytest.mark.parametrize("how", ["giant", "too-much", "wrong-kind", "empty-data", "cut"])
def test_content_that_makes_no_sense_is_not_put_in_place(lying, src, dst, how):
    server = lying(how)
    build(dst, {"a": "old"})
    stats = of(sypy.sync, server.url(f"{src}/"), f"{dst}/", ssh=server.config, retry_delay=0.1, retry=1)
    assert len(stats.errors) == 3 and (dst / "a").read_text() == "old"
    assert keys(dst) <= {"a", "d"} and leftovers(dst) == []


@pytest.mark.parametrize("how", ["short", "twice", "vague"])
def test_what_is_odd_but_allowed_is_coped_with(lying, src, dst, how):
    server = lying(how)
    build(src, {"large": os.urandom(300_000)})
    sypy.sync(server.url(f"{src}/"), f"{dst}/", ssh=server.config)
    assert (dst / "large").read_bytes() == (src / "large").read_bytes() and keys(dst) == keys(src)


@pytest.mark.parametrize(("how", "why"), [("version", "version 2"), ("text", "text where SFTP should begin")])
def test_what_is_no_sftp_is_told(lying, src, dst, how, why):
    server = lying(how)
    with pytest.raises(sypy.SyncError, match=why):
        sypy.sync(server.url(f"{src}/"), f"{dst}/", ssh=server.config)


def test_a_silent_server_is_not_waited_for(lying, src, dst):
    server = lying("silent")
    with pytest.raises((sypy.NetworkTimeoutError, sypy.NetworkError)):
        sypy.sync(server.url(f"{src}/"), f"{dst}/", ssh=server.config.replace(connect_timeout="2s"))
    with pytest.raises(sypy.NetworkTimeoutError):
        sypy.sync(server.url(f"{src}/"), f"{dst}/", ssh=server.config, timeout="1s")
