"""Fixtures that all tests share; those of object stores stand in `servers`. Helpers to import: trees, running, events, model."""

import os
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

import running

pytest_plugins = ["servers"]

REPO = Path(__file__).resolve().parent.parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")

calm = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large]}
settings.register_profile("quick", max_examples=150, **calm)
settings.register_profile("slow", max_examples=4000, **calm)


def pytest_addoption(parser):
    parser.addoption(
        "--slow", action="store_true", help="run the slow tests too, and many more examples of each property"
    )


def pytest_configure(config):
    config.addinivalue_line("markers", "slow: takes long; run with --slow")
    if os.environ.get("HYPOTHESIS_PROFILE") == "slow":
        config.option.slow = True
    settings.load_profile("slow" if config.option.slow else "quick")


def pytest_collection_modifyitems(config, items):
    if not config.getoption("--slow"):
        for item in items:
            if "slow" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="slow; run with --slow"))


# Variables that would change what a run does, or whose bucket it does it to.
FOREIGN = ("SYPY_", "RSYNC_", "AWS_", "GOOGLE_", "GCS_", "STORAGE_EMULATOR_", "CLOUDSDK_", "AZURE_")


@pytest.fixture(autouse=True)
def own_environment(tmp_path_factory, monkeypatch):
    """No test sees the user's index, trash, settings or credentials, nor another test's."""
    home = tmp_path_factory.mktemp("home")
    for name in ("XDG_STATE_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, str(home / name[4:-5].lower()))
    for name in [name for name in os.environ if name.startswith(FOREIGN) or name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(home / name.lower()))
    return home


@pytest.fixture
def src(tmp_path) -> Path:
    """A place for a source; nothing is there yet."""
    return tmp_path / "src"


@pytest.fixture
def dst(tmp_path) -> Path:
    """A place for a destination; nothing is there yet."""
    return tmp_path / "dst"


def find_sy() -> Path | None:
    """The native binary: $SY_BIN, else the newest in cargo's target directory."""
    if named := os.environ.get("SY_BIN"):
        return Path(named)
    targets = [os.environ.get("CARGO_TARGET_DIR"), CACHE / "sypy" / "target", REPO / "target"]
    built = [Path(target) / profile / "sy" for target in targets if target for profile in ("ci", "release", "debug")]
    return max(
        (binary for binary in built if binary.is_file()), key=lambda binary: binary.stat().st_mtime, default=None
    )


@pytest.fixture
def sy_binary() -> Path:
    """The native command line."""
    binary = find_sy()
    if binary is None or not binary.is_file():
        pytest.skip("the native binary is not built; name one in SY_BIN")
    return binary


@pytest.fixture
def run_sypy():
    """Runs `sypy ARGS…` to its end: `run_sypy("src/", "dst/", "--delete").returncode`."""

    def run_sypy(*args, timeout=60, means=None, **kw) -> subprocess.CompletedProcess:
        return running.run([*running.with_means(**(means or {})), *running.PYTHON_CLI, *args], timeout=timeout, **kw)

    return run_sypy


@pytest.fixture(params=["sypy", "sy"])
def command(request) -> list[str]:
    """The command line, once in a Python process and once native: `run([*command, "src/", "dst/"])`."""
    return running.PYTHON_CLI if request.param == "sypy" else [str(request.getfixturevalue("sy_binary"))]


@pytest.fixture
def sync(sy_binary, src, dst):
    """Runs the native command line on the two places: `sync("--delete", prefix=strace(…)).returncode`."""

    def sync(*options, source=None, dest=None, prefix=(), **kw) -> subprocess.CompletedProcess:
        return running.run([*prefix, sy_binary, source or f"{src}/", dest or f"{dst}/", *options], **kw)

    return sync


@pytest.fixture
def sync_at(sy_binary):
    """Runs the native command line at an object store: `sync_at(moto, f"{src}/", bucket.url(), delete=True).done()`."""

    def sync_at(server, source, dest, *, env=None, timeout=120, prefix=(), **options) -> running.Outcome:
        command = [*prefix, sy_binary, source, dest, "--json", *running.arguments(**options)]
        variables = os.environ | server.env | (env or {})
        # `None` takes one away.
        variables = {name: value for name, value in variables.items() if value is not None}
        done = running.run(command, env=variables, timeout=timeout)
        return running.outcome_of(done.returncode, done.stdout, done.stderr)

    return sync_at


@pytest.fixture
def shm_path(tmp_path_factory):
    """A directory on tmpfs, which is another file system than `tmp_path`'s."""
    shm = Path("/dev/shm")
    if not os.access(shm, os.W_OK) or shm.stat().st_dev == tmp_path_factory.getbasetemp().stat().st_dev:
        pytest.skip("no second file system at /dev/shm")
    path = shm / f"sypy-test-{uuid.uuid4().hex}"
    path.mkdir()
    yield path
    subprocess.run(["rm", "-rf", str(path)], check=False)


@pytest.fixture
def mount(tmp_path_factory):
    """Mounts a small file system: `mount("tmpfs", size="1m")`, `mount("ext4", mkfs=["-I", "128"])`. For root only."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount")
    mounted: list[Path] = []

    def mount(kind: str, *, size="64m", mkfs=(), options=()) -> Path:
        place = tmp_path_factory.mktemp(kind)
        if kind in ("tmpfs", "ramfs"):
            what, options = "none", [*options, f"size={size}"] if kind == "tmpfs" else options
        else:
            what, options = str(tmp_path_factory.mktemp("image") / "fs"), [*options, "loop"]
            Path(what).touch()
            os.truncate(what, int(size[:-1]) << {"m": 20, "g": 30}[size[-1]])
            _try(f"mkfs.{kind}", *mkfs, what)
        _try("mount", "-t", kind, *(["-o", ",".join(options)] if options else []), what, str(place))
        mounted.append(place)
        if (place / "lost+found").exists():
            (place / "lost+found").rmdir()
        return place

    yield mount
    for place in reversed(mounted):
        subprocess.run(["umount", "-l", str(place)], check=False)


@pytest.fixture
def bind(tmp_path):
    """Makes a directory appear at another place as well: `bind(src, dst / "again")`. For root only."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount")
    bound: list[Path] = []

    def bind(what: Path, where: Path) -> Path:
        where.mkdir(parents=True, exist_ok=True)
        _try("mount", "--bind", str(what), str(where))
        bound.append(where)
        return where

    yield bind
    for place in reversed(bound):
        subprocess.run(["umount", "-l", str(place)], check=False)


def _try(*command: str) -> None:
    """Runs a tool of the system; a machine that lacks it, or may not use it, skips the test."""
    try:
        subprocess.run(command, check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip(f"{command[0]} is not installed")
    except subprocess.CalledProcessError as error:
        pytest.skip(f"{' '.join(command)}: {error.stderr.decode(errors='replace').strip()}")


@pytest.fixture
def strace():
    """A prefix that runs a command under strace: `strace("inject=write:error=EIO:when=1", log=path)`."""
    probe = [*_STRACE, "-e", "trace=getpid", "-o", "/dev/null", "true"]
    try:
        if subprocess.run(probe, capture_output=True, check=False).returncode != 0:
            pytest.skip("strace may not trace here")
    except FileNotFoundError:
        pytest.skip("strace is not installed")

    def strace(*expressions: str, log="/dev/null") -> list[str]:
        return [*_STRACE, *(part for expression in expressions for part in ("-e", expression)), "-o", str(log)]

    return strace


_STRACE = ["strace", "-f", "-qq", "-E", "RUST_BACKTRACE=0"]


def pytest_report_header():
    return f"sy: {find_sy() or 'not built'}, python: {sys.version.split()[0]}, uid: {os.geteuid()}"
