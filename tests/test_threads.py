"""Many threads at once, also on a Python without the GIL: each run is its own, and what they share is a frozen value."""

import contextlib
import hashlib
import logging
import os
import pickle
import random
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

import sypy

THREADS = 8


class Stop(Exception):
    pass


def grow(root, rng):
    """A tree of directories, files and links."""
    root.mkdir()
    places = [root]
    for i in range(150):
        path = rng.choice(places) / f"n{i}"
        match rng.choice(["dir", "link", "file", "file", "file", "file"]):
            case "dir":
                path.mkdir()
                places.append(path)
            case "link":
                path.symlink_to(f"n{i - 1}")
            case _:
                path.write_bytes(rng.randbytes(rng.choice([0, 10, 70_000])))


def tree(root):
    """What a tree holds, by relative path."""

    def content(path):
        if path.is_symlink():
            return os.readlink(path)
        return hashlib.sha256(path.read_bytes()).digest() if path.is_file() else None

    return {path.relative_to(root): (path.lstat().st_mode, content(path)) for path in root.rglob("*")}


def everywhere(work, count=THREADS):
    """Does `work(i)` on `count` threads that start together; the first exception of any is raised."""
    start = threading.Barrier(count)

    def run(i):
        start.wait()
        return work(i)

    with ThreadPoolExecutor(count) as pool:
        return [job.result(timeout=100) for job in [pool.submit(run, i) for i in range(count)]]


@pytest.fixture
def debug_records():
    """Log records of all levels, as (thread, message)."""
    records = []
    handler = logging.Handler()
    handler.emit = lambda record: records.append((record.threadName, record.getMessage()))
    logger = logging.getLogger("sypy")
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield records
    logger.removeHandler(handler)
    logger.setLevel(logging.NOTSET)


def test_the_module_leaves_the_gil_off():
    if getattr(sys, "_is_gil_enabled", lambda: True)():
        pytest.skip("this Python has a GIL")
    assert "cpython-3" in sypy._sypy.__file__


@pytest.mark.usefixtures("debug_records")
def test_runs_that_share_options_and_are_stopped_from_callbacks(tmp_path):
    options = sypy.SyncOptions(delete=True, exclude=["*.tmp"], s3=sypy.S3Config(region="eu-west-1"))
    keywords = {"delete": True, "exclude": ["*.tmp"]}

    def work(i):
        rng, me = random.Random(i), threading.get_ident()
        src, dst = tmp_path / f"src{i}", tmp_path / f"dst{i}"
        grow(src, rng)
        for _ in range(5):
            left = [rng.randrange(1, 80)]

            def stop(_, left=left):
                assert threading.get_ident() == me
                left[0] -= 1
                if left[0] == 0:
                    raise Stop

            callback = {rng.choice(["on_event", "progress", "progress_callback"]): stop}
            with contextlib.suppress(Stop):
                sypy.sync(f"{src}/", dst, progress_frequency_ms=1, **callback, **keywords)
            snapshots = []
            stats = sypy.sync_with_options(f"{src}/", dst, options, snapshots.append, 1)
            assert snapshots[-1].bytes == stats.bytes_transferred
            assert tree(src) == tree(dst)
            for path in [path for path in src.rglob("*") if path.is_file() and rng.random() < 0.2]:
                path.unlink()

    everywhere(work)


def test_frozen_values_are_read_from_many_threads():
    config = sypy.S3Config(access_key_id="id", secret_access_key="hunter2", pickle_secrets=True)
    options = sypy.SyncOptions(delete=True, s3=config)

    def work(_):
        for _ in range(50):
            assert options.replace(checksum=True).replace(checksum=False) == options
            assert sypy.SyncOptions.from_dict(options.to_dict(secrets=True)) == options
            assert pickle.loads(pickle.dumps(options)) == options
            assert (hash(options.s3), "hunter2" in repr(options)) == (hash(config), False)

    everywhere(work)


def test_what_a_thread_hands_over_may_change_meanwhile():
    patterns, fields, over = ["*.tmp"], {"delete": True}, threading.Event()

    def change():
        while not over.is_set():
            patterns.append("*.bak")
            fields.update(min_size=1, dry_run=True)
            del patterns[1:], fields["min_size"], fields["dry_run"]

    def hand(_):
        for _ in range(300):
            assert sypy.SyncOptions(exclude=patterns).exclude[0] == "*.tmp"
            assert sypy.SyncOptions.from_dict(fields).delete

    thread = threading.Thread(target=change)
    thread.start()
    try:
        everywhere(hand, 3)
    finally:
        over.set()
        thread.join()


def test_the_first_use_may_be_on_many_threads():
    code = (
        "import threading\n"
        f"start, failed = threading.Barrier({THREADS}), []\n"
        "def first():\n"
        "    start.wait()\n"
        "    import sypy\n"
        "    try: sypy.sync('/nonexistent/x', '/nonexistent/y')\n"
        "    except sypy.NotFoundError as error: failed.append(error.stats)\n"
        f"threads = [threading.Thread(target=first) for _ in range({THREADS})]\n"
        "for thread in threads: thread.start()\n"
        "for thread in threads: thread.join()\n"
        f"assert len(failed) == {THREADS}, failed\n"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
