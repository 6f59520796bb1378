"""The door between Python and the engine: Ctrl-C, callbacks, threads, forks, log records, progress."""

import io
import logging
import multiprocessing
import os
import pty
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest

import sypy


def files(root, count, size=10):
    """A source of `count` files."""
    root.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        (root / f"f{i:05}").write_bytes(b"x" * size)
    return root


def failing(root):
    """A source and a destination between which one item of three fails."""
    # A directory stands where a file must go; it is not empty, and nothing may be deleted.
    (root / "dst/f00001/child").mkdir(parents=True)
    return files(root / "src", 3), root / "dst"


@pytest.fixture
def slow(tmp_path):
    """A run that takes half a minute unless it is stopped: source, destination, options."""
    return files(tmp_path / "slow", 30, 1_000_000), tmp_path / "dest", {"bwlimit": "1MB"}


def leftovers(dest):
    """Files at the destination that are not whole."""
    if not dest.exists():
        return []
    return [
        path
        for path in dest.rglob("*")
        if path.is_file() and (not path.name.startswith("f") or path.stat().st_size != 1_000_000)
    ]


def interrupt_after(seconds):
    threading.Timer(seconds, lambda: os.kill(os.getpid(), signal.SIGINT)).start()


class Stop(Exception):
    pass


class TestInterrupt:
    def test_ctrl_c_stops_a_run_within_a_second_and_cleans_up(self, slow):
        source, dest, options = slow
        interrupt_after(0.5)
        begin = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            sypy.sync(source, dest, **options)
        assert time.monotonic() - begin < 1.5
        assert leftovers(dest) == []

    def test_a_run_after_an_interrupt_works(self, slow, tmp_path):
        source, dest, options = slow
        interrupt_after(0.2)
        with pytest.raises(KeyboardInterrupt):
            sypy.sync(source, dest, **options)
        sypy.sync(f"{source}/", dest)
        assert len(list(dest.glob("f*"))) == 30

    def test_a_handler_of_the_user_decides(self, slow):
        source, dest, options = slow

        def handler(number, frame):
            raise Stop

        old = signal.signal(signal.SIGUSR1, handler)
        try:
            threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGUSR1)).start()
            with pytest.raises(Stop):
                sypy.sync(source, dest, **options)
        finally:
            signal.signal(signal.SIGUSR1, old)
        assert leftovers(dest) == []

    def test_a_signal_whose_handler_returns_does_not_stop_the_run(self, tmp_path):
        source = files(tmp_path / "src", 8, 100_000)
        seen = []
        old = signal.signal(signal.SIGUSR1, lambda number, frame: seen.append(number))
        try:
            threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGUSR1)).start()
            stats = sypy.sync(f"{source}/", tmp_path / "dst", bwlimit="1MB")
        finally:
            signal.signal(signal.SIGUSR1, old)
        assert seen == [signal.SIGUSR1]
        assert stats.files_created == 8

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
    def test_the_command_line_cleans_up_on_signals(self, slow, number):
        source, dest, _ = slow
        command = [sys.executable, "-m", "sypy", "--bwlimit=1MB", f"{source}/", str(dest)]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        while not dest.exists():
            time.sleep(0.02)
        time.sleep(0.3)
        process.send_signal(number)
        begin = time.monotonic()
        _, said = process.communicate(timeout=10)
        assert time.monotonic() - begin < 1.5
        assert process.returncode == 128 + number
        assert "Traceback" not in said
        assert leftovers(dest) == []

    def test_main_gives_signal_handlers_back(self, tmp_path):
        files(tmp_path / "src", 1)
        before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)]
        assert sypy.main(["-q", f"{tmp_path}/src/", f"{tmp_path}/dst/"]) == 0
        assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)] == before
        assert (tmp_path / "dst/f00000").exists()

    def test_main_works_in_another_thread(self, tmp_path):
        files(tmp_path / "src", 1)
        codes = []
        thread = threading.Thread(
            target=lambda: codes.append(sypy.main(["-q", f"{tmp_path}/src/", f"{tmp_path}/dst/"]))
        )
        thread.start()
        thread.join()
        assert codes == [0]

    def test_a_nohup_run_goes_on_when_the_terminal_goes(self, tmp_path):
        source = files(tmp_path / "src", 10, 100_000)
        code = textwrap.dedent(f"""
            import signal, sypy
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            print("ready", flush=True)
            raise SystemExit(sypy.main(["-q", "--bwlimit=1MB", {str(source) + "/"!r}, {str(tmp_path / "dst")!r}]))
        """)
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        process.stdout.readline()
        time.sleep(0.3)
        process.send_signal(signal.SIGHUP)
        assert process.wait(timeout=20) == 0
        process.stdout.close()

    def test_exit_codes_pass_through(self, run_sypy, tmp_path):
        assert run_sypy("--no-such-option").returncode == 1
        assert run_sypy(tmp_path / "missing", tmp_path / "dst").returncode not in (0, 130)


class TestCallbacks:
    @pytest.mark.parametrize("name", ["progress", "progress_callback", "on_event"])
    def test_an_exception_in_a_callback_stops_the_run_and_is_raised(self, slow, name):
        source, dest, options = slow

        def callback(_):
            raise Stop

        begin = time.monotonic()
        with pytest.raises(Stop):
            sypy.sync(source, dest, **{name: callback, "progress_frequency_ms": 100}, **options)
        assert time.monotonic() - begin < 2.5
        assert leftovers(dest) == []

    def test_an_exception_in_the_last_callback_is_raised(self, tmp_path):
        source = files(tmp_path / "src", 3)

        def callback(_):
            raise Stop

        with pytest.raises(Stop):
            sypy.sync(source, tmp_path / "dst", progress_callback=callback, progress_frequency_ms=60_000)

    def test_waiting_for_the_clean_up_does_not_keep_a_core_busy(self, slow):
        source, dest, options = slow

        def callback(event):
            if isinstance(event, sypy.ActionEvent):
                raise Stop

        cpu = time.process_time()
        with pytest.raises(Stop):
            sypy.sync(source, dest, on_event=callback, progress=lambda _: None, progress_frequency_ms=1, **options)
        assert time.process_time() - cpu < 0.5

    def test_progress_comes_as_often_as_asked_and_once_at_the_end(self, tmp_path):
        source = files(tmp_path / "src", 10, 100_000)
        snapshots = []
        sypy.sync(
            f"{source}/", tmp_path / "dst", bwlimit="1MB", progress_callback=snapshots.append, progress_frequency_ms=100
        )
        assert len(snapshots) >= 4
        done = [snapshot.bytes for snapshot in snapshots]
        assert done == sorted(done)
        last = snapshots[-1]
        assert (last.bytes, last.total_bytes, last.transfers, last.percentage) == (1_000_000, 1_000_000, 10, 100.0)
        assert last.elapsed_secs > 0
        assert last.eta_secs == 0

    def test_a_short_run_has_its_last_snapshot(self, tmp_path):
        snapshots = []
        source = files(tmp_path / "src", 3)
        options = sypy.SyncOptions(exclude=["f00001"])
        stats = sypy.sync_with_options(f"{source}/", tmp_path / "dst", options, snapshots.append, 1000)
        assert len(snapshots) == 1
        assert stats.files_created == 2

    def test_callbacks_run_on_the_calling_thread(self, tmp_path):
        source = files(tmp_path / "src", 3)
        threads = set()
        sypy.sync(
            source,
            tmp_path / "dst",
            progress=lambda _: threads.add(threading.get_ident()),
            on_event=lambda _: threads.add(threading.get_ident()),
        )
        assert threads == {threading.get_ident()}

    def test_every_event_arrives_also_when_the_callback_is_slow(self, tmp_path):
        source = files(tmp_path / "src", 3000, 1)
        events = []

        def callback(event):
            if len(events) < 50:
                time.sleep(0.01)
            events.append(event)

        stats = sypy.sync(f"{source}/", tmp_path / "dst", on_event=callback)
        created = [event.path for event in events if event.action == "create" and event.kind == "file"]
        assert len(created) == stats.files_created == 3000
        assert len(set(created)) == 3000

    def test_failed_items_are_events_too(self, tmp_path):
        source, dest = failing(tmp_path)
        events = []
        stats = sypy.sync(f"{source}/", dest, on_event=events.append, on_error="collect")
        assert [event for event in events if isinstance(event, sypy.SyncError)] == stats.errors
        assert [error.path for error in stats.errors]

    def test_a_callback_may_sync(self, tmp_path):
        source = files(tmp_path / "src", 3)
        inner = []
        sypy.sync(
            f"{source}/", tmp_path / "a", progress=lambda _: inner.append(sypy.sync(f"{source}/", tmp_path / "b"))
        )
        assert inner[-1].files_created == 3

    def test_events_of_a_dry_run_are_its_details(self, tmp_path):
        source = files(tmp_path / "src", 5)
        events = []
        stats = sypy.sync(f"{source}/", tmp_path / "dst", dry_run=True, on_event=events.append)
        paths = [event.path for event in events if event.kind == "file"]
        assert paths == [change.path for change in stats.dry_run_details.file_changes]
        assert stats.dry_run_summary["would_create"]["bytes"] == 50
        assert not (tmp_path / "dst").exists()


class TestErrors:
    def test_a_time_limit_ends_a_run_with_a_timeout_error(self, slow):
        source, dest, options = slow
        begin = time.monotonic()
        with pytest.raises(TimeoutError) as caught:
            sypy.sync(source, dest, timeout=0.3, **options)
        assert isinstance(caught.value, sypy.NetworkTimeoutError)
        assert time.monotonic() - begin < 1.5
        assert leftovers(dest) == []

    def test_a_fatal_error_has_the_stats(self, tmp_path):
        with pytest.raises(sypy.NotFoundError) as caught:
            sypy.sync(tmp_path / "missing", tmp_path / "dst", on_error="collect")
        assert isinstance(caught.value, FileNotFoundError)
        assert isinstance(caught.value.stats, sypy.SyncStats)

    def test_failed_items_are_raised_or_collected(self, tmp_path):
        source, dest = failing(tmp_path)
        kept = sypy.sync(f"{source}/", dest, on_error="collect")
        assert (kept.success, len(kept.errors)) == (False, 1)
        assert (dest / "f00002").exists()
        with pytest.raises(sypy.PartialSyncError) as caught:
            sypy.sync(f"{source}/", dest)
        assert caught.value.errors == caught.value.stats.errors == kept.errors
        with pytest.raises(sypy.PartialSyncError):
            kept.raise_for_errors()


class TestThreads:
    def test_runs_side_by_side(self, tmp_path):
        sources = [files(tmp_path / f"src{i}", 50) for i in range(8)]
        results = {}

        def run(i):
            results[i] = sypy.sync(f"{sources[i]}/", tmp_path / f"dst{i}")

        threads = [threading.Thread(target=run, args=(i,)) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [results[i].files_created for i in range(8)] == [50] * 8

    def test_the_gil_is_free_meanwhile(self, tmp_path):
        source = files(tmp_path / "src", 10, 50_000)
        ticks = []
        stop = threading.Event()

        def tick():
            while not stop.wait(0.01):
                ticks.append(time.monotonic())

        thread = threading.Thread(target=tick)
        thread.start()
        sypy.sync(f"{source}/", tmp_path / "dst", bwlimit="1MB")
        stop.set()
        thread.join()
        assert len(ticks) > 10

    def test_a_run_leaves_no_thread_behind(self, tmp_path):
        source = files(tmp_path / "src", 20)
        before = len(os.listdir("/proc/self/task"))
        for i in range(3):
            sypy.sync(f"{source}/", tmp_path / f"dst{i}")
        deadline = time.monotonic() + 2
        while len(os.listdir("/proc/self/task")) > before and time.monotonic() < deadline:
            time.sleep(0.01)
        assert len(os.listdir("/proc/self/task")) <= before

    def test_the_interpreter_exits_with_a_run_in_flight(self, slow):
        source, dest, _ = slow
        code = textwrap.dedent(f"""
            import threading, time, sypy
            threading.Thread(target=lambda: sypy.sync({str(source)!r}, {str(dest)!r}, bwlimit="1MB"), daemon=True).start()
            time.sleep(0.3)
        """)
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=10)
        assert (done.returncode, done.stderr) == (0, "")


class TestForks:
    @pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
    def test_a_child_syncs_after_its_parent_did(self, tmp_path):
        source = files(tmp_path / "src", 5)
        sypy.sync(f"{source}/", tmp_path / "a")
        child = os.fork()
        if child == 0:
            try:
                os._exit(0 if sypy.sync(f"{source}/", tmp_path / "b").files_created == 5 else 1)
            finally:
                os._exit(2)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        assert sypy.sync(f"{source}/", tmp_path / "c").files_created == 5

    @pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
    def test_a_child_syncs_while_its_parent_does(self, slow, tmp_path):
        source, dest, options = slow
        small = files(tmp_path / "src", 5)
        codes = []

        def fork(_):
            if codes:
                return
            child = os.fork()
            if child == 0:
                try:
                    os._exit(0 if sypy.sync(f"{small}/", tmp_path / "b").files_created == 5 else 1)
                finally:
                    os._exit(2)
            codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
            raise Stop

        with pytest.raises(Stop):
            sypy.sync(source, dest, progress_callback=fork, progress_frequency_ms=100, **options)
        assert codes == [0]

    @pytest.mark.parametrize("method", ["fork", "spawn"])
    @pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
    def test_pools_of_processes(self, tmp_path, method):
        source = files(tmp_path / "src", 5)
        with multiprocessing.get_context(method).Pool(2) as pool:
            jobs = [pool.apply_async(sypy.sync, (f"{source}/", str(tmp_path / f"dst{i}"))) for i in range(4)]
            assert [job.get(timeout=30).files_created for job in jobs] == [5] * 4
            with pytest.raises(sypy.NotFoundError):
                pool.apply(sypy.sync, (str(tmp_path / "missing"), str(tmp_path / "x")))


class TestLogs:
    def test_records_go_to_the_logger_of_the_package(self, tmp_path, caplog):
        source = files(tmp_path / "src", 2)
        os.mkfifo(source / "fifo")
        with caplog.at_level(logging.DEBUG, logger="sypy"):
            sypy.sync(f"{source}/", tmp_path / "dst")
        assert {record.name for record in caplog.records} <= {"sypy"}
        assert {record.levelno for record in caplog.records} <= {logging.DEBUG, logging.INFO, logging.WARNING}
        assert {record.threadName for record in caplog.records} <= {threading.current_thread().name}

    def test_a_silent_logger_is_not_asked(self, tmp_path):
        class Loud(logging.Handler):
            def emit(self, record):
                raise AssertionError(record.getMessage())

        logger, handler = logging.getLogger("sypy"), Loud()
        logger.addHandler(handler)
        logger.setLevel(logging.ERROR)
        try:
            source = files(tmp_path / "src", 2)
            os.mkfifo(source / "fifo")
            sypy.sync(f"{source}/", tmp_path / "dst")
        finally:
            logger.removeHandler(handler)
            logger.setLevel(logging.NOTSET)


BAR = """
import sys, sypy
sypy.sync(sys.argv[1], sys.argv[2], progress=True, bwlimit="1MB")
"""


def in_a_terminal(*args):
    """What a process writes to a terminal of its own on standard error."""
    ours, theirs = pty.openpty()
    env = {**os.environ, "TERM": "xterm", "COLUMNS": "160"}
    process = subprocess.Popen([sys.executable, "-c", BAR, *args], stderr=theirs, stdout=subprocess.DEVNULL, env=env)
    os.close(theirs)
    said = io.BytesIO()
    while True:
        try:
            data = os.read(ours, 65536)
        except OSError:  # The other end is closed.
            break
        if not data:
            break
        said.write(data)
    os.close(ours)
    assert process.wait(timeout=10) == 0
    return said.getvalue().decode(errors="replace")


class TestBar:
    def test_a_bar_in_a_terminal(self, tmp_path):
        pytest.importorskip("rich")
        source = files(tmp_path / "src", 10, 100_000)
        said = in_a_terminal(f"{source}/", str(tmp_path / "dst"))
        assert "1.0 MB of 1.0 MB" in said
        assert "10 of 10 files" in said
        assert "MB/s" in said or "kB/s" in said

    def test_a_name_is_shown_without_what_a_terminal_obeys(self, tmp_path):
        pytest.importorskip("rich")
        source = tmp_path / "src"
        source.mkdir()
        (source / "[red]\x1b[2Jx\n").write_bytes(b"x" * 1_500_000)
        said = in_a_terminal(f"{source}/", str(tmp_path / "dst"))
        assert "\x1b[2J" not in said
        assert "[red]\\x1b[2Jx\\n" in said

    def test_no_bar_where_nobody_sees_it(self, tmp_path):
        source = files(tmp_path / "src", 2)
        done = subprocess.run(
            [sys.executable, "-c", BAR, f"{source}/", str(tmp_path / "dst")], capture_output=True, text=True
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

    def test_a_widget_in_a_notebook(self, tmp_path, monkeypatch):
        pytest.importorskip("ipywidgets")
        pytest.importorskip("tqdm")
        from sypy import _progress

        monkeypatch.setattr(_progress, "_in_notebook", lambda: True)
        bar = _progress.bar()
        bar(sypy.ProgressSnapshot(bytes=5, total_bytes=10, totals_are_final=True, current_file="a\x1b"))
        bar.close()
        assert (bar.bar.n, bar.bar.total) == (5, 10)
