"""Between two places that are both elsewhere, one of them a host: contents pass through here and stay nowhere."""

import contextlib
import os
import random
import threading

import pytest

import running
import sypy
from conftest import find_sy
from events import Recorder
from fault_proxy import Corrupt
from sshd import HOST, Sshd, needs_sshd
from trees import (
    Dir,
    File,
    Hard,
    Link,
    assert_alike,
    build,
    difference,
    keys,
    leftovers,
    rewrite,
    set_mtime,
    snapshot,
    whole,
)

MIB = 1 << 20
# What SFTP can tell as well: whole seconds.
WHEN = 1_700_000_000_000_000_000
TREE = {
    "a.txt": File("text", mtime_ns=WHEN),
    "empty": File(b"", mtime_ns=WHEN),
    "run": File(b"#!", mode=0o755, mtime_ns=WHEN),
    "secret": File(b"s", mode=0o600, mtime_ns=WHEN),
    "large": File(random.Random(1).randbytes(700_001), mtime_ns=WHEN),
    "dir/": Dir(mtime_ns=WHEN),
    "dir/inner/b": File(b"b" * 100_000, mtime_ns=WHEN),
    "link": Link("a.txt", mtime_ns=WHEN),
    "dangling": Link("../../nowhere", mtime_ns=WHEN),
    **{f"many/{n}": File(f"{n}" * n, mtime_ns=WHEN) for n in range(300)},
}
ODD = [
    "-rf",
    "*",
    "'quote'",
    '"double"',
    "$HOME",
    "`id`",
    "a b",
    "~",
    "ü",
    "a" * 200,
    ";",
    "#",
    "%41",
    "a:b",
    "..a",
    "...",
    ".hidden",
]


class Server(Sshd):
    """One with an agent, and with SFTP."""

    def __init__(self, place) -> None:
        # SHLVL keeps the shell from reading the start files that it reads for remote commands.
        super().__init__(place, extra=["SetEnv SHLVL=2"])

    @property
    def config(self) -> sypy.SshConfig:
        return sypy.SshConfig(config_file=self.place / "ssh_config", agent_path=str(find_sy()))

    def agents(self) -> list[int]:
        return [pid for pid in self.sessions() if _program(pid) == "sy"]


def _program(pid: int) -> str:
    try:
        return os.path.basename(os.readlink(f"/proc/{pid}/exe"))
    except OSError:
        return ""


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    needs_sshd()
    if find_sy() is None:
        pytest.skip("the native binary is not built; name one in SY_BIN")
    both = [Server(tmp_path_factory.mktemp("from")), Server(tmp_path_factory.mktemp("to"))]
    yield both
    for one in both:
        one.stop()


class Pair:
    """Runs between two local paths as two hosts see them, each with a config of its own."""

    def __init__(self, servers, source: str, dest: str) -> None:
        self.servers, self.source, self.dest = servers, source, dest

    def sides(self, source, dest) -> tuple[str, str]:
        return f"{self.source}://{HOST}{source}", f"{self.dest}://{HOST}{dest}"

    @property
    def options(self) -> dict:
        a, b = self.servers
        return {"source_options": a.config, "dest_options": b.config}

    def __call__(self, source, dest, **options):
        return sypy.sync(*self.sides(source, dest), **self.options, **options)

    def changes(self, source, dest, **options) -> set:
        seen = Recorder()
        self(source, dest, on_event=seen, **options).raise_for_errors()
        return {change for change in seen.changes if change[0] not in ("", ".")}


@pytest.fixture(params=["ssh-ssh", "ssh-sftp", "sftp-ssh"])
def pair(request, servers):
    return Pair(servers, *request.param.split("-"))


@pytest.fixture
def agents(servers):
    return Pair(servers, "ssh", "ssh")


# From host to host.


def test_a_tree_goes_from_host_to_host_and_a_second_run_does_nothing(pair, src, dst):
    build(src, TREE)
    stats = pair(f"{src}/", f"{dst}/")
    assert stats.success and stats.files_created == 308 and stats.symlinks_created == 2
    assert_alike(src, dst)
    assert pair.changes(f"{src}/", f"{dst}/") == set()
    assert pair.changes(f"{src}/", f"{dst}/", checksum=True) == set()


def test_edits_and_deletions_arrive(pair, src, dst):
    build(src, TREE)
    pair(f"{src}/", f"{dst}/").raise_for_errors()
    rewrite(src / "a.txt", "changed", WHEN + 10**9)
    rewrite(src / "large", (src / "large").read_bytes()[:-5] + b"other", WHEN + 10**9)
    build(src, {"new/deep/er": File("new", mtime_ns=WHEN)})
    (src / "run").chmod(0o700)
    (src / "link").unlink()
    (src / "link").symlink_to("run")
    (src / "empty").unlink()
    how = {"delete": True, "force_delete": True}
    foretold = pair.changes(f"{src}/", f"{dst}/", dry_run=True, **how)
    assert {
        ("a.txt", "update"),
        ("large", "update"),
        ("run", "metadata"),
        ("link", "update"),
        ("empty", "delete"),
    } <= foretold
    assert pair.changes(f"{src}/", f"{dst}/", **how) >= foretold - {("new", "create")}
    assert_alike(src, dst)
    assert pair.changes(f"{src}/", f"{dst}/", **how) == set()


def test_contents_are_compared_where_that_is_asked_for(pair, src, dst):
    build(
        src,
        {"same": File("one", mtime_ns=WHEN), "other": File("two", mtime_ns=WHEN), "later": File("x", mtime_ns=WHEN)},
    )
    pair(f"{src}/", f"{dst}/").raise_for_errors()
    rewrite(src / "other", "TWO", WHEN)
    set_mtime(src / "later", WHEN + 10**10)
    expected = {("other", "update"), ("later", "metadata")}
    assert pair.changes(f"{src}/", f"{dst}/", checksum=True, dry_run=True) == expected
    assert pair.changes(f"{src}/", f"{dst}/", checksum=True) == expected
    assert_alike(src, dst)


def test_any_name_goes_from_host_to_host(pair, src, dst):
    build(src, dict.fromkeys([*ODD, "new\nline", "\udcff\udcfe"], "content") | {"d\n/-x\udc80": "x"})
    pair(f"{src}/", f"{dst}/").raise_for_errors()
    assert keys(src) == keys(dst)


def test_a_single_file_takes_the_name_it_is_given(pair, src, dst):
    build(src, {"one": "1", "big": random.Random(2).randbytes(300_000)})
    dst.mkdir()
    pair(src / "one", dst / "renamed").raise_for_errors()
    pair(src / "big", f"{dst}/").raise_for_errors()
    assert (dst / "renamed").read_text() == "1" and (dst / "big").read_bytes() == (src / "big").read_bytes()


def test_removed_sources_are_those_that_arrived(pair, src, dst):
    build(src, {"a": "a", "d/big": random.Random(2).randbytes(300_000)})
    before = {key: (src / key).read_bytes() for key in ("a", "d/big")}
    pair(f"{src}/", f"{dst}/", remove_source_files=True).raise_for_errors()
    assert {key: (dst / key).read_bytes() for key in before} == before
    assert keys(src) == {"d"}


def test_between_agents_holes_and_hard_links_stay(agents, src, dst):
    build(src, {"a": "linked", "b": Hard("a")})
    with open(src / "sparse", "wb") as file:
        file.write(b"begin")
        file.seek(20 * MIB)
        file.write(b"end")
    agents(f"{src}/", f"{dst}/", preserve_hardlinks=True, sparse=True).raise_for_errors()
    assert (dst / "a").stat().st_ino == (dst / "b").stat().st_ino
    assert (dst / "sparse").read_bytes() == (src / "sparse").read_bytes()
    assert (dst / "sparse").stat().st_blocks * 512 < MIB
    assert agents.changes(f"{src}/", f"{dst}/", preserve_hardlinks=True) == set()


def test_between_agents_changed_files_travel_as_differences(agents, src, dst):
    content = bytearray(random.Random(3).randbytes(12 * MIB))
    build(src, {"big": File(bytes(content), mtime_ns=WHEN)})
    agents(f"{src}/", f"{dst}/").raise_for_errors()
    content[5 * MIB : 5 * MIB] = b"inserted"
    rewrite(src / "big", bytes(content), WHEN + 10**9)
    stats = agents(f"{src}/", f"{dst}/")
    assert (dst / "big").read_bytes() == content
    assert stats.files_delta_synced == 1 and stats.delta_bytes_saved > 11 * MIB


def test_a_file_that_can_not_be_written_is_recorded_and_the_rest_goes(pair, src, dst, mount):
    small = mount("tmpfs", size="3m")
    build(src, {"a": "a", "big": random.Random(4).randbytes(8 * MIB), "z": "z"})
    with pytest.raises(sypy.PartialSyncError) as caught:
        pair(f"{src}/", f"{small}/", retry=0)
    (error,) = caught.value.stats.errors
    assert error.path.endswith("/big") and "space" in str(error).lower()
    assert keys(small) == {"a", "z"}


@pytest.mark.parametrize("which", [0, 1])
def test_a_connection_that_is_cut_is_made_anew_or_the_next_run_goes_on(pair, src, dst, which):
    build(
        src,
        {f"d{n}/big": random.Random(n).randbytes(24 * MIB) for n in range(4)} | {f"s/{n}": "x" * n for n in range(200)},
    )
    server = pair.servers[which]
    cuts = threading.Thread(
        target=lambda: (running.wait_until(lambda: keys(dst) if dst.exists() else (), timeout=30), server.cut())
    )
    cuts.start()
    with contextlib.suppress(sypy.SyncError):
        pair(f"{src}/", f"{dst}/", bwlimit="40M", retry=2, retry_delay=0.2)
    cuts.join()
    pair(f"{src}/", f"{dst}/").raise_for_errors()
    assert_alike(src, dst)


def test_a_cut_off_file_is_gone_on_with(agents, src, dst):
    build(src, {"big": random.Random(5).randbytes(64 * MIB)})
    dst.mkdir()
    stopped = threading.Thread(
        target=lambda: (running.wait_until(lambda: _part(dst) > 20 * MIB, timeout=60), agents.servers[1].cut())
    )
    stopped.start()
    with pytest.raises(sypy.SyncError):
        agents(f"{src}/", f"{dst}/", bwlimit="60M", retry=0)
    stopped.join()
    assert _part(dst) > 0
    agents(f"{src}/", f"{dst}/").raise_for_errors()
    assert (dst / "big").read_bytes() == (src / "big").read_bytes()
    assert leftovers(dst) == []


def test_a_directory_keeps_its_time_when_what_was_left_in_it_goes(pair, src, dst):
    build(src, {"d/": Dir(mtime_ns=WHEN), "d/a": File("a", mtime_ns=WHEN)})
    pair(f"{src}/", f"{dst}/").raise_for_errors()
    build(dst, {"d/.sypy-part-0123456789abcdef0123456789abcdef": File("cut off", mtime_ns=WHEN)})
    set_mtime(dst / "d", WHEN)
    pair(f"{src}/", f"{dst}/").raise_for_errors()
    assert_alike(src, dst)


def _part(dst) -> int:
    return max((entry.stat().st_size for entry in os.scandir(dst)), default=0)


def test_a_large_file_does_not_pass_through_memory(pair, src, dst):
    build(src, {f"{n}": random.Random(n).randbytes(64 * MIB) for n in range(2)})
    stats = running.sync_in_child(*pair.sides(f"{src}/", f"{dst}/"), **pair.options)
    assert stats.success and stats.peak_memory < 80 * MIB
    assert_alike(src, dst)


@pytest.mark.parametrize("inside", ["", "/inner", "/new/deeper"])
def test_one_host_is_not_synced_into_itself(pair, src, inside):
    build(src, {"a": "a", "inner/b": "b"})
    before = keys(src)
    same = Pair([pair.servers[0]] * 2, pair.source, pair.dest)
    for sides in [(f"{src}/", f"{src}{inside}/"), (f"{src}{inside}/", f"{src}/")]:
        if os.path.isdir(sides[0]):
            with pytest.raises(ValueError, match="the destination"):
                same(*sides)
    assert keys(src) == before


def test_this_machine_is_not_synced_into_itself_over_a_host(servers, src):
    build(src, {"a": "a"})
    there = f"ssh://{HOST}{src}/new/"
    with pytest.raises(ValueError, match="lies within the source"):
        sypy.sync(f"{src}/", there, ssh=servers[0].config)
    with pytest.raises(ValueError, match="lies within the source"):
        sypy.sync(f"ssh://{HOST}{src}/", src / "new", ssh=servers[0].config)
    assert keys(src) == {"a"}


@pytest.mark.parametrize("option", ["preserve_xattrs", "preserve_acls"])
def test_what_a_pair_can_not_keep_is_refused_beforehand(pair, src, dst, option):
    if (pair.source, pair.dest) == ("ssh", "ssh"):
        return  # Agents keep all.
    build(src, {"a": "a"})
    with pytest.raises(sypy.SyncError, match="can't honour"):
        pair(f"{src}/", f"{dst}/", **{option: True})
    assert not dst.exists()


# Buckets.


@pytest.fixture(params=["ssh", "sftp"])
def kind(request):
    return request.param


@pytest.fixture
def bucket(s3):
    return s3.bucket()


class WithBucket:
    def __init__(self, server, kind: str, bucket, store=None) -> None:
        self.server, self.kind, self.bucket, self.store = server, kind, bucket, store or bucket.server

    @property
    def options(self) -> dict:
        plain = sypy.CloudClientOptions(allow_http=True)
        return {
            "ssh": self.server.config,
            "s3": sypy.S3Config(**self.store.config, client_options=plain, pickle_secrets=True),
        }

    def url(self, path) -> str:
        return f"{self.kind}://{HOST}{path}"

    def up(self, source, key="", **options):
        return sypy.sync(self.url(source), self.bucket.url(key), **self.options, **options)

    def down(self, dest, key="", **options):
        return sypy.sync(self.bucket.url(key), self.url(dest), **self.options, **options)

    def changes(self, run, *where, **options) -> set:
        seen = Recorder()
        run(*where, on_event=seen, **options).raise_for_errors()
        return {change for change in seen.changes if change[0] not in ("", ".")}


@pytest.fixture
def cloud(servers, kind, bucket):
    return WithBucket(servers[0], kind, bucket)


def without_dirs(tree: dict) -> dict:
    return {key: node for key, node in whole(tree).items() if node["kind"] != "directory"}


def test_a_tree_goes_to_a_bucket_and_back_to_a_host(cloud, src, dst):
    build(src, TREE)
    cloud.up(f"{src}/", "there/").raise_for_errors()
    assert len(cloud.bucket.all_keys("there/")) == 308
    assert cloud.changes(cloud.up, f"{src}/", "there/") == set()
    stats = cloud.down(f"{dst}/", "there/")
    assert stats.success and stats.files_created == 308
    assert not difference(without_dirs(snapshot(src)), without_dirs(snapshot(dst)))
    assert leftovers(dst) == []
    assert cloud.changes(cloud.down, f"{dst}/", "there/") == set()
    assert cloud.changes(cloud.down, f"{dst}/", "there/", checksum=True) == set()


def test_edits_and_deletions_pass_between_bucket_and_host(cloud, src, dst):
    build(src, TREE)
    cloud.up(f"{src}/").raise_for_errors()
    cloud.down(f"{dst}/").raise_for_errors()
    rewrite(src / "a.txt", "changed", WHEN + 10**9)
    rewrite(src / "large", (src / "large").read_bytes()[:-5] + b"other", WHEN + 10**9)
    (src / "empty").unlink()
    (src / "link").unlink()
    (src / "link").symlink_to("run")
    how = {"delete": True, "force_delete": True}
    expected = {("a.txt", "update"), ("large", "update"), ("link", "update"), ("empty", "delete")}
    assert cloud.changes(cloud.up, f"{src}/", **how) == expected
    assert cloud.changes(cloud.down, f"{dst}/", dry_run=True, **how) == expected
    assert cloud.changes(cloud.down, f"{dst}/", **how) == expected
    assert not difference(without_dirs(snapshot(src)), without_dirs(snapshot(dst)))


def test_what_others_put_into_a_bucket_arrives_with_the_time_of_the_upload(cloud, dst):
    big = random.Random(6).randbytes(600_000)
    cloud.bucket.put("plain", "text")
    cloud.bucket.put("d/big", big)
    cloud.down(f"{dst}/").raise_for_errors()
    assert (dst / "plain").read_text() == "text" and (dst / "d/big").read_bytes() == big
    told = {key: item["LastModified"].timestamp() for key, item in cloud.bucket.listed().items()}
    assert {key: abs((dst / key).stat().st_mtime - when) < 2 for key, when in told.items()} == dict.fromkeys(told, True)
    assert cloud.changes(cloud.down, f"{dst}/") == set()


def test_names_that_no_file_can_have_are_recorded(servers, kind, moto, dst):
    bucket = moto.bucket()
    for key in ("good", "d//double", "d/../up", "x" * 300):
        bucket.put(key, "content")
    with pytest.raises(sypy.PartialSyncError) as caught:
        WithBucket(servers[0], kind, bucket).down(f"{dst}/")
    assert len(caught.value.stats.errors) == 3
    assert (dst / "good").read_text() == "content"
    assert {path.name for path in dst.parent.iterdir()} <= {"dst", "src"}


@pytest.mark.parametrize("size", [1000, 600_000, 8 * MIB])
def test_wrong_sums_are_refused(servers, kind, versitygw, proxied, dst, size):
    bucket = versitygw.bucket()
    content = random.Random(7).randbytes(size)
    build(dst, {"bad": "the old one"})
    for key in ("bad", "good"):
        bucket.put(key, content, ChecksumAlgorithm="CRC32")
    server, proxy = proxied(versitygw)
    proxy.fault(Corrupt(at=size // 2), kind="GET", key="bad")
    with pytest.raises(sypy.PartialSyncError) as caught:
        WithBucket(servers[0], kind, bucket, server).down(f"{dst}/", retry=1, retry_delay=0)
    (error,) = caught.value.stats.errors
    assert isinstance(
        error.error if hasattr(error, "error") else error, sypy.VerificationError
    ) or "not what the store has" in str(error)
    assert (dst / "bad").read_text() == "the old one" and (dst / "good").read_bytes() == content
    assert leftovers(dst) == []


def test_a_large_object_does_not_pass_through_memory(servers, kind, versitygw, src, dst):
    cloud = WithBucket(servers[0], kind, versitygw.bucket())
    build(src, {"big": random.Random(8).randbytes(64 * MIB)})
    up = running.sync_in_child(cloud.url(f"{src}/"), cloud.bucket.url(), **cloud.options)
    down = running.sync_in_child(cloud.bucket.url(), cloud.url(f"{dst}/"), **cloud.options)
    assert (dst / "big").read_bytes() == (src / "big").read_bytes()
    assert up.success and up.peak_memory < 110 * MIB
    assert down.success and down.peak_memory < 80 * MIB


def test_a_bucket_can_not_follow_what_only_hosts_have(cloud, dst):
    cloud.bucket.put("a", "a")
    for option in ("preserve_xattrs", "preserve_hardlinks"):
        with pytest.raises(sypy.SyncError, match="can't honour"):
            cloud.down(f"{dst}/", **{option: True})
    assert not dst.exists()
    with pytest.raises(sypy.SyncError, match="trash"):
        cloud.up(f"{dst}/", trash=True)
