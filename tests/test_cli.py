"""The command line as a user meets it: what it prints and how it exits. `command` is `sypy`, then the native `sy`."""

import contextlib
import fcntl
import json
import os
import pty
import re
import shutil
import signal
import stat
import struct
import subprocess
import termios
import time

import pytest

from running import run, started, wait_until, with_means
from trees import Link, assert_same, build, keys, leftovers, rewrite, text

SUMMARY = re.compile(r"^2 created, 1 directory created, 1\.0 kB in [\d.]+ (s|ms)\n$")
TREE = {"a": "x" * 1000, "d/b": "y" * 34}


@pytest.fixture
def sync(command, src, dst):
    """Runs the command on the two places: `sync("--delete").returncode`."""

    def sync(*options, **kw):
        return run([*command, f"{src}/", f"{dst}/", *options], **kw)

    return sync


def events(done):
    """The events of a `--json` run."""
    return [json.loads(line) for line in done.stdout.splitlines()]


# What people see.


def test_without_options_only_a_summary_is_printed(sync, src, dst):
    build(src, TREE)
    done = sync()
    assert done.returncode == 0
    assert SUMMARY.match(done.stdout)
    assert done.stderr == ""
    assert_same(src, dst)


def test_a_second_run_has_nothing_to_do(sync, src):
    build(src, TREE)
    sync()
    assert sync().stdout.startswith("nothing to do: 2 unchanged in ")


def test_quiet_prints_nothing_but_errors(sync, src, dst):
    build(src, TREE)
    done = sync("-q", "--dry-run")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    shutil.rmtree(src)
    done = sync("-q")
    assert done.stdout == ""
    assert "No such file or directory" in done.stderr


def test_verbose_names_what_is_done_and_twice_what_is_skipped(sync, src, dst):
    build(src, {"a": "1", "d/b": "2", "link": Link("a")})
    lines = sync("-v").stdout.splitlines()[:-1]
    assert set(lines) == {"create    a", "create    d/", "create    d/b", "create    link -> a"}
    rewrite(src / "a", "now longer")
    build(dst, {"gone": "x"})
    lines = sync("-vv", "--delete").stdout.splitlines()[:-1]
    assert {"update    a", "delete    gone", "skip      d/b  (unchanged)"} <= set(lines)


def test_itemized_lines_have_columns(sync, src, dst):
    build(src, {"a b": "x" * 12_345, "l": Link("../x")})
    build(dst, {"gone/": None})
    lines = sync("-i", "--delete", "--force-delete").stdout.splitlines()[:-1]
    assert "create    file        12.3 kB  a b  (new)" in lines
    assert "delete    directory            gone/  (not in source)" in lines
    assert any(re.fullmatch(r"create +symlink +l -> \.\./x +\(new\)", line) for line in lines)


def test_a_dry_run_prints_the_plan_and_changes_nothing(sync, src, dst):
    build(src, TREE)
    done = sync("-n")
    assert done.returncode == 0
    *plan, summary = done.stdout.splitlines()
    assert "create    file         1.0 kB  a  (new)" in plan
    assert re.match(r"would create 2, create 1 directory, 1\.0 kB to copy in ", summary)
    assert not dst.exists()


def test_stats_are_a_table_of_all_counters(sync, src):
    build(src, TREE)
    table = dict(re.split(r"  +", line, maxsplit=1) for line in sync("--stats").stdout.splitlines()[1:])
    assert table["files created"] == "2"
    assert table["bytes transferred"] == "1,034  (1.0 kB)"
    assert {"failed", "duration", "peak memory", "transfer rate"} <= table.keys()


def test_failed_items_are_named_as_they_happen(command, src, dst):
    build(src, {"d/secret": "1", "ok": "2"})
    (src / "d/secret").chmod(0)
    done = run([*with_means(unprivileged=True), *command, f"{src}/", f"{dst}/"])
    assert done.returncode == 23
    assert re.fullmatch(rf'(sy|sypy): cannot read "({src}/)?d/secret": Permission denied.*\n', done.stderr)
    assert "1 created" in done.stdout
    assert "1 failed" in done.stdout
    assert text(dst / "ok") == "2"


def test_only_the_first_failures_are_shown(command, src, dst):
    build(src, {f"f{n:02}": "1" for n in range(30)})
    for n in range(25):
        (src / f"f{n:02}").chmod(0)
    line = [*with_means(unprivileged=True), *command, f"{src}/", f"{dst}/"]
    shown = run(line).stderr.splitlines()
    assert len(shown) == 21
    assert shown[-1].endswith(": 5 more failed; -v shows all")
    assert len(run([*line, "-v"]).stderr.splitlines()) == 25


def test_names_that_are_not_utf_8_work_as_locations(command, tmp_path):
    build(tmp_path / "s\udcff", {"a": "1"})
    done = run([*command, f"{tmp_path}/s\udcff/", f"{tmp_path}/d\udcfe"])
    assert done.returncode == 0, done.stderr
    assert text(tmp_path / "d\udcfe/a") == "1"


# Words of the command line.


def test_filters_apply_in_the_order_given(sync, src, dst, tmp_path):
    build(src, {"a.py": "1", "b.py": "2", "c.o": "3", "d.txt": "4"})
    (tmp_path / "rules").write_text("# kept out\n*.o\n+ d.txt\n")
    assert sync("--include=a.py", "--exclude", "*.py", "--exclude-from", f"{tmp_path}/rules").returncode == 0
    assert keys(dst) == {"a.py", "d.txt"}


def test_the_other_order_is_another_filter(sync, src, dst):
    build(src, {"a.py": "1", "b.py": "2"})
    sync("--exclude", "*.py", "--include=a.py")
    assert keys(dst) == set()


def test_patterns_can_come_from_standard_input(sync, src, dst):
    build(src, {"a": "1", "b": "2"})
    assert sync("--exclude-from=-", input="b\n").returncode == 0
    assert keys(dst) == {"a"}


def test_combined_flags_of_an_rsync_user(sync, src, dst):
    build(src, TREE)
    done = sync("-avh", "--no-owner", "--no-g", "-rltp", "--del")
    assert done.returncode == 0, done.stderr
    assert_same(src, dst)


def test_a_later_option_takes_an_earlier_one_back(sync, src, dst):
    build(src, TREE)
    assert sync("--no-times", "-t", "--dry-run", "--no-dry-run").returncode == 0
    assert_same(src, dst)


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["a"],
        ["a", "b", "c"],
        ["--no-such-option", "a", "b"],
        ["--bwlimit=fast", "a", "b"],
        ["ftp://host/x", "b"],
        ["", "b"],
    ],
)
def test_wrong_usage_is_exit_code_1_and_said_on_stderr(command, words):
    done = run([*command, *words])
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr


def test_a_missing_source_is_exit_code_1(sync, dst):
    done = sync()
    assert (done.returncode, done.stdout) == (1, "")
    assert not dst.exists()


def test_help_and_version_say_which_program_it_is(run_sypy, sy_binary):
    for program, call in (("sypy", run_sypy), ("sy", lambda *args: run([sy_binary, *args]))):
        assert f"Usage: {program} [OPTIONS] <SOURCE> <DEST>" in call("-h").stdout
        assert re.fullmatch(rf"{program} \d+\.\d+\.\d+\S*\n", call("--version").stdout)


def test_the_long_help_says_more_than_the_short_one(command):
    short, long = run([*command, "-h"]), run([*command, "--help"])
    assert (short.returncode, long.returncode) == (0, 0)
    assert "Exit codes:" in long.stdout
    assert "Exit codes:" not in short.stdout
    for heading in ("What to do:", "Which files:", "What to preserve:", "What to show:"):
        assert heading in short.stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completions_are_scripts_of_their_shell(command, shell):
    done = run([*command, "--generate", shell])
    assert done.returncode == 0
    assert "delete-threshold" in done.stdout
    if shutil.which(shell):
        checked = subprocess.run([shell, "-n"], input=done.stdout, text=True, capture_output=True, check=False)
        assert (checked.returncode, checked.stderr) == (0, "")


def test_the_man_page_renders(command):
    page = run([*command, "--generate", "man"])
    assert page.returncode == 0
    if not shutil.which("groff"):
        pytest.skip("groff is not installed")
    done = subprocess.run(
        ["groff", "-ww", "-man", "-Tascii", "-P-cbou"], input=page.stdout, text=True, capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "EXIT STATUS" in done.stdout
    assert "--delete-threshold" in done.stdout


# JSON.


def test_json_events_begin_with_start_and_end_with_stats(sync, src, dst):
    build(src, {"a": "1", "l": Link("a"), b"\xff\n": "2"})
    done = sync("--json")
    assert (done.returncode, done.stderr) == (0, "")
    first, *rest, last = events(done)
    assert (first["event"], first["source"], first["dest"], first["dry_run"]) == ("start", f"{src}/", f"{dst}/", False)
    assert (last["event"], last["files_created"], last["failed"], last["exit_code"]) == ("stats", 3, 0, 0)
    actions = {event["path"]: event for event in rest if event["event"] == "action"}
    expected = {"event": "action", "action": "create", "kind": "file", "path": "a", "reason": "new"}
    assert actions["a"] == {**expected, "bytes": 1, "old_bytes": None, "target": None}
    assert actions["l"]["target"] == "a"
    assert os.fsencode("\udcff\n") in {os.fsencode(path) for path in actions}
    assert done.stdout.isascii()


def test_json_tells_of_skipped_files_when_asked(sync, src):
    build(src, {"a": "1"})
    sync()
    assert [event["event"] for event in events(sync("--json"))] == ["start", "stats"]
    skipped = [event for event in events(sync("--json", "-vv")) if event["event"] == "action"]
    assert [(event["action"], event["path"], event["reason"]) for event in skipped] == [("skip", "a", "unchanged")]


def test_json_tells_of_failures(command, src, dst):
    build(src, {"a": "1"})
    (src / "a").chmod(0)
    done = run([*with_means(unprivileged=True), *command, "--json", f"{src}/", f"{dst}/"])
    assert done.returncode == 23
    errors = [event for event in events(done) if event["event"] == "error"]
    assert [(error["kind"], error["action"], error["errno"], error["fatal"]) for error in errors] == [
        ("permission_denied", "read", 13, False)
    ]
    assert events(done)[-1]["exit_code"] == 23


def test_json_tells_of_a_run_that_was_refused(sync, src):
    done = sync("--json")
    assert done.returncode == 1
    assert [event["event"] for event in events(done)] == ["start", "error", "stats"]
    assert events(done)[1]["fatal"]
    assert str(src) in done.stderr


# Progress.


def slow(src, seconds=3):
    """A tree and options that make a run take so long."""
    build(src, {"big": os.urandom(1 << 20), "small": "1"})
    return ["--bwlimit", str((1 << 20) // seconds)]


def test_json_tells_of_progress_each_second(sync, src):
    progress = [event for event in events(sync("--json", *slow(src))) if event["event"] == "progress"]
    assert 2 <= len(progress) <= 6
    assert all(event["bytes"] <= event["total_bytes"] for event in progress)
    assert progress[-1]["bytes"] > progress[0]["bytes"] > 0


def test_progress_without_a_terminal_is_a_line_a_second(sync, src):
    done = sync("--progress", *slow(src))
    assert done.returncode == 0
    assert re.search(r"\d+%  .* of 1\.0 MB  .*/s  ETA 0:0\d  \d of 2 files", done.stderr)
    assert "\r" not in done.stderr
    assert "\x1b" not in done.stderr


def in_terminal(command, **kw):
    """Runs a command with its error output in a terminal; returns its exit code and what the terminal got."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    process = subprocess.Popen(
        command, stdin=slave, stdout=kw.pop("stdout", slave), stderr=slave, start_new_session=True, **kw
    )
    os.close(slave)
    seen = b""
    # The terminal is gone (EIO) when the last process has closed it.
    with contextlib.suppress(OSError):
        while chunk := os.read(master, 65536):
            seen += chunk
    os.close(master)
    return process.wait(timeout=30), seen.decode()


def test_a_terminal_shows_a_bar_and_then_the_summary(command, src, dst):
    code, seen = in_terminal([*command, f"{src}/", f"{dst}/", *slow(src)], env={**os.environ, "TERM": "xterm"})
    assert code == 0
    assert re.search(r"\[#+-+\] \d+%  .* of 1\.0 MB  .*/s  ETA 0:0\d", seen)
    # The bar is taken away before the summary.
    last = seen.rstrip("\r\n").rsplit("\x1b[2K", 1)[1]
    assert re.match(r"(\x1b\[\d*[A-Z]|\r)*2 created, 1\.0 MB in ", last), repr(last)
    assert_same(src, dst)


@pytest.mark.parametrize("option", ["--no-progress", "-q", "--json"])
def test_a_bar_can_be_switched_off(command, src, dst, option):
    code, seen = in_terminal([*command, f"{src}/", f"{dst}/", option, *slow(src, seconds=1)])
    assert code == 0
    assert "[#" not in seen
    assert "\x1b" not in seen


def test_a_bar_does_not_mix_with_names(command, src, dst):
    build(src, {f"f{n}": os.urandom(1 << 16) for n in range(8)})
    code, seen = in_terminal(
        [*command, "-v", f"{src}/", f"{dst}/", "--bwlimit", str(1 << 18)], env={**os.environ, "TERM": "xterm"}
    )
    assert code == 0
    for n in range(8):
        assert re.search(rf"(\A|\r|\n|\x1b\[\d*[A-Z])create    f{n}\r\n", seen), repr(seen)


# Being stopped.


def until_it_copies(dst):
    """Waits for the first bytes of a copy in flight."""
    wait_until(lambda: dst.is_dir() and any(path.stat().st_size for path in dst.iterdir()), what="a copy in flight")


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_signals_stop_a_run_within_a_second_and_clean_up(command, src, dst, name, code):
    build(src, {"big": os.urandom(1 << 22)})
    with started([*command, f"{src}/", f"{dst}/", "--bwlimit", "200k"]) as process:
        until_it_copies(dst)
        process.send_signal(getattr(signal, name))
        began = time.monotonic()
        _, errors = process.communicate(timeout=10)
        assert time.monotonic() - began < 2
    assert process.returncode == code
    assert b"cancelled" in errors or b"interrupted" in errors
    assert b"Traceback" not in errors
    assert "big" not in keys(dst)


def test_a_stopped_run_ends_its_json(command, src, dst):
    build(src, {"big": os.urandom(1 << 22)})
    with started([*command, f"{src}/", f"{dst}/", "--json", "--bwlimit", "200k"]) as process:
        until_it_copies(dst)
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=10)
    last = json.loads(output.splitlines()[-1])
    assert (last["event"], last["success"]) == ("stats", False)


def test_a_run_goes_on_when_hangups_are_ignored(command, src, dst):
    with started(["nohup", *command, f"{src}/", f"{dst}/", *slow(src)]) as process:
        until_it_copies(dst)
        process.send_signal(signal.SIGHUP)
        process.communicate(timeout=30)
    assert process.returncode == 0
    assert_same(src, dst)


def test_a_reader_who_goes_away_ends_the_run_quietly(command, src, dst):
    build(src, {f"{n:04}": "x" * 1000 for n in range(3000)})
    with started([*command, "-v", f"{src}/", f"{dst}/", "--bwlimit", "300k"]) as process:
        assert process.stdout.readline().startswith(b"create")
        process.stdout.close()
        process.stdout = None
        _, errors = process.communicate(timeout=20)
    assert process.returncode == 141
    assert errors == b""
    assert 0 < len(keys(dst)) < 3000


def test_a_reader_who_goes_away_from_the_help_is_no_error(command):
    done = run(["bash", "-c", 'set -o pipefail; "$@" --help | head -1', "-", *command])
    assert (done.returncode, done.stderr) == (0, "")


def test_a_reader_who_stops_reading_does_not_hold_up_a_signal(command, src, dst):
    build(src, {f"{n:04}-{'n' * 100}": "1" for n in range(4000)})
    with started([*command, "-v", f"{src}/", f"{dst}/"]) as process:
        # More than a pipe holds is waiting, and nobody reads it.
        wait_until(lambda: dst.is_dir() and len(os.listdir(dst)) > 2000, timeout=30)
        time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=5)
    assert not leftovers(dst)


def test_output_that_cannot_be_written_is_not_silent(command, src, dst):
    build(src, TREE)
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*command, f"{src}/", f"{dst}/"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 1
    assert "No space left on device" in done.stderr
    assert_same(src, dst)


def test_closed_standard_streams_do_not_end_up_in_files(command, src, dst):
    build(src, {**TREE, **{f"f{n}": "content" for n in range(50)}})
    done = run(["bash", "-c", 'exec "$@" <&- >&- 2>&-', "-", *command, "-vv", f"{src}/", f"{dst}/"])
    assert done.returncode == 0
    assert_same(src, dst)
    assert stat.S_ISREG((dst / "a").stat().st_mode)
