"""The values of the Python API: options, configs, paths, stats, errors. No test here syncs more than a file."""

import copy
import datetime
import errno
import io
import json
import os
import pathlib
import pickle
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

import sypy

OPTION_NAMES = list(sypy.SyncOptions().to_dict())

# What a script written for sy-python may set, from its type stubs.
SY_PYTHON_OPTIONS = """
    dry_run delete delete_threshold trash force_delete parallel max_errors min_size max_size exclude include bwlimit
    resume verify compress preserve_xattrs preserve_hardlinks preserve_acls preserve_permissions preserve_times
    ignore_times size_only checksum update ignore_existing gitignore exclude_vcs bidirectional conflict_resolve
    daemon_auto retry retry_delay s3 gcs ssh
""".split()
MORE_OPTIONS = """
    max_delete backup_dir on_error min_age max_age filter existing remove_source_files preserve_owner
    numeric_ids preserve_devices archive links unsafe_links sparse durable timeout azure opendal source_options dest_options
""".split()
SY_PYTHON_STATS = """
    files_scanned files_created files_updated files_skipped files_deleted bytes_transferred files_delta_synced
    delta_bytes_saved files_compressed compression_bytes_saved files_verified verification_failures duration_secs
    bytes_would_add bytes_would_change bytes_would_delete dirs_created symlinks_created errors success transfer_rate
    dry_run_summary dry_run_details
""".split()

CONFIGS = [
    sypy.S3Config(region="eu-west-1", client_options=sypy.CloudClientOptions(max_retries=1)),
    sypy.GcsConfig(credentials_file="key.json", project_id="p"),
    sypy.AzureConfig(account="a"),
    sypy.OpenDalConfig(endpoint="https://h/dav", root="/x", disable_create_dir=True),
    sypy.SshConfig(user="me", port=22, options={"ServerAliveInterval": "30"}, connect_timeout="10s"),
    sypy.CloudClientOptions(user_agent="me", max_connections=3),
]
SECRET_CONFIGS = [
    sypy.S3Config(access_key_id="AKID", secret_access_key="hunter2", session_token="hunter2"),
    sypy.GcsConfig(credentials_json='{"key": "hunter2"}'),
    sypy.GcsConfig(token="hunter2"),
    sypy.AzureConfig(account="a", key="hunter2"),
    sypy.AzureConfig(sas_token="hunter2"),
    sypy.AzureConfig(tenant_id="t", client_id="c", client_secret="hunter2"),
    sypy.AzureConfig(connection_string="AccountKey=hunter2"),
    sypy.SshConfig(password="hunter2"),
    sypy.SshConfig(key_data="hunter2", passphrase="hunter2"),
    sypy.OpenDalConfig(user="me", password="hunter2"),
    sypy.OpenDalConfig(token="hunter2"),
    sypy.OpenDalConfig(application_key_id="id", application_key="hunter2"),
    sypy.CloudClientOptions(proxy_url="http://me:hunter2@proxy:3128"),
    sypy.S3Config(client_options=sypy.CloudClientOptions(proxy_url="http://me:hunter2@proxy:3128")),
]


def named(value) -> str:
    return type(value).__name__


class TestOptions:
    @pytest.mark.parametrize("name", SY_PYTHON_OPTIONS + MORE_OPTIONS)
    def test_every_promised_option_is_there_and_takes_its_default_back(self, name):
        default = getattr(sypy.SyncOptions(), name)
        assert sypy.SyncOptions(**{name: default}) == sypy.SyncOptions()

    @pytest.mark.parametrize("name", OPTION_NAMES)
    def test_every_option_has_a_text(self, name):
        assert getattr(sypy.SyncOptions, name).__doc__.endswith(".")

    def test_defaults(self):
        options = sypy.SyncOptions()
        assert (options.delete_threshold, options.max_errors, options.parallel, options.retry) == (50, 100, 10, 3)
        assert (options.retry_delay, options.on_error, options.links, options.conflict_resolve) == (
            1,
            "raise",
            "preserve",
            "newer",
        )
        assert (options.exclude, options.min_size, options.timeout, options.s3) == ((), None, None, None)
        on = {name for name in OPTION_NAMES if getattr(options, name) is True}
        assert on == {"resume", "preserve_times", "preserve_permissions", "sparse"}

    @pytest.mark.parametrize(
        "call", [sypy.SyncOptions, lambda **kw: sypy.sync("a", "b", **kw), sypy.SyncOptions().replace]
    )
    def test_an_unknown_keyword_brings_the_nearest(self, call):
        with pytest.raises(TypeError, match=r"unexpected keyword argument 'delet'; did you mean 'delete'\?"):
            call(delet=True)

    def test_a_keyword_of_the_call_is_known_to_the_call(self):
        with pytest.raises(TypeError, match="did you mean 'progress_callback'"):
            sypy.sync("a", "b", progres_callback=print)

    def test_options_are_keywords_only(self):
        with pytest.raises(TypeError):
            sypy.SyncOptions(True)
        with pytest.raises(TypeError):
            sypy.sync("a", "b", True)

    @pytest.mark.parametrize(
        "fields",
        [
            {"delete": 1},
            {"delete": None},
            {"delete": "yes"},
            {"parallel": 2.5},
            {"parallel": "4"},
            {"parallel": True},
            {"max_delete": "many"},
            {"min_size": 1.5},
            {"min_age": [1]},
            {"exclude": 1},
            {"exclude": [1]},
            {"exclude": {"a"}},
            {"links": 5},
            {"on_error": 5},
            {"s3": "key"},
            {"s3": sypy.GcsConfig()},
            {"source_options": sypy.CloudClientOptions()},
        ],
        ids=str,
    )
    def test_a_wrong_type_is_a_type_error_that_names_the_option(self, fields):
        with pytest.raises(TypeError, match=f"^{next(iter(fields))} must be"):
            sypy.SyncOptions(**fields)

    @pytest.mark.parametrize(
        "fields",
        [
            {"parallel": -1},
            {"parallel": 10**30},
            {"delete_threshold": -1},
            {"delete_threshold": 256},
            {"min_size": "10 parsecs"},
            {"min_size": -1},
            {"max_age": "soon"},
            {"timeout": -1.0},
            {"timeout": datetime.timedelta(days=-1)},
            {"links": "chase"},
            {"conflict_resolve": "mine"},
            {"on_error": "ignore"},
            {"backup_dir": ""},
        ],
        ids=str,
    )
    def test_a_wrong_value_is_a_config_error_that_names_the_option(self, fields):
        with pytest.raises(sypy.ConfigError, match=next(iter(fields))) as caught:
            sypy.SyncOptions(**fields)
        assert isinstance(caught.value, ValueError)

    def test_a_percentage_beyond_100_is_a_config_error_of_the_run(self, tmp_path):
        with pytest.raises(sypy.ConfigError, match="delete_threshold"):
            sypy.sync(tmp_path, tmp_path / "b", delete_threshold=101)

    def test_sizes_ages_and_patterns_come_in_many_forms(self):
        same = [
            sypy.SyncOptions(min_size="1MB", min_age="2d", exclude="*.o", timeout=90, backup_dir="old"),
            sypy.SyncOptions(
                min_size=1_000_000,
                min_age=datetime.timedelta(days=2),
                exclude=["*.o"],
                timeout=90.0,
                backup_dir=pathlib.Path("old"),
            ),
            sypy.SyncOptions(
                min_size="1000000", min_age=172800, exclude=(b"*.o",), timeout="1m 30s", backup_dir=b"old"
            ),
        ]
        assert same[0] == same[1] == same[2]
        assert len(set(same)) == 1
        assert (same[0].min_size, same[0].min_age, same[0].exclude) == (1_000_000, 172800.0, ("*.o",))

    def test_none_stands_for_no_patterns(self):
        assert sypy.SyncOptions(exclude=None, include=None) == sypy.SyncOptions()

    def test_patterns_that_are_not_utf8_survive(self):
        options = sypy.SyncOptions(exclude=[b"\xff*"])
        assert options.exclude == ("\udcff*",)
        assert sypy.SyncOptions(exclude=options.exclude) == options

    def test_numbers_of_other_libraries_are_numbers(self):
        class Number:
            def __index__(self):
                return 7

        assert sypy.SyncOptions(max_delete=Number()).max_delete == 7

    def test_options_are_frozen(self):
        with pytest.raises(AttributeError):
            sypy.SyncOptions().delete = True
        with pytest.raises(AttributeError):
            sypy.SyncOptions().nonsense = True

    def test_repr_shows_what_differs_and_can_be_read_back(self):
        options = sypy.SyncOptions(delete=True, exclude=["a b"], links="skip", timeout=5)
        assert repr(options) == "SyncOptions(delete=True, exclude=('a b',), links='skip', timeout=5.0)"
        assert eval(repr(options), vars(sypy)) == options

    def test_replace_leaves_the_original(self):
        options = sypy.SyncOptions(delete=True)
        assert options.replace(dry_run=True, delete=False) == sypy.SyncOptions(dry_run=True)
        assert options == sypy.SyncOptions(delete=True)

    def test_dicts_go_there_and_back(self):
        options = sypy.SyncOptions(
            delete=True, exclude=["x"], s3=CONFIGS[0], source_options=CONFIGS[3], on_error="collect"
        )
        text = json.dumps(options.to_dict())
        assert sypy.SyncOptions.from_dict(json.loads(text)) == options

    def test_a_dict_of_a_config_for_one_side_says_its_type(self):
        with pytest.raises(sypy.ConfigError, match="type"):
            sypy.SyncOptions.from_dict({"source_options": {"region": "x"}})

    def test_not_equal_to_other_things(self):
        assert sypy.SyncOptions() != sypy.SyncOptions(delete=True)
        assert sypy.SyncOptions() != {}
        assert sypy.SyncOptions(s3=CONFIGS[0]) != sypy.SyncOptions()
        assert sypy.SyncOptions(s3=CONFIGS[0]) == sypy.SyncOptions(s3=CONFIGS[0].replace())

    @given(
        st.fixed_dictionaries(
            {},
            optional={
                "delete": st.booleans(),
                "delete_threshold": st.integers(0, 100),
                "max_delete": st.none() | st.integers(0, 2**63 - 1),
                "min_size": st.none() | st.integers(0, 2**63 - 1),
                "timeout": st.none() | st.floats(0, 1e9),
                "exclude": st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1)),
                "links": st.sampled_from(["preserve", "follow", "skip"]),
                "on_error": st.sampled_from(["raise", "collect"]),
                "s3": st.none() | st.just(CONFIGS[0]),
            },
        )
    )
    def test_whatever_they_are_they_survive_every_copy(self, fields):
        options = sypy.SyncOptions(**fields)
        for other in (
            pickle.loads(pickle.dumps(options)),
            copy.copy(options),
            copy.deepcopy(options),
            sypy.SyncOptions.from_dict(options.to_dict()),
            options.replace(),
        ):
            assert other == options
            assert hash(other) == hash(options)


class TestConfigs:
    @pytest.mark.parametrize("config", CONFIGS, ids=named)
    def test_a_config_is_a_value(self, config):
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            assert pickle.loads(pickle.dumps(config, protocol)) == config
        assert copy.deepcopy(config) == config
        assert config.replace() == config
        assert hash(config.replace()) == hash(config)
        assert config != type(config)()
        assert type(config).from_dict(json.loads(json.dumps(config.to_dict()))) == config
        with pytest.raises(AttributeError):
            config.user = "x"

    @pytest.mark.parametrize("config", SECRET_CONFIGS, ids=named)
    def test_a_secret_is_never_shown(self, config):
        assert "***" in repr(config)
        for text in (repr(config), str(config), f"{config}", repr(config.to_dict()), repr(sypy.SyncOptions())):
            assert "hunter2" not in text

    @pytest.mark.parametrize("config", SECRET_CONFIGS, ids=named)
    def test_a_secret_is_pickled_only_when_asked(self, config):
        with pytest.raises(TypeError, match=r"replace\(pickle_secrets=True\)"):
            pickle.dumps(config)
        assert copy.deepcopy(config) == config
        allowed = config.replace(pickle_secrets=True)
        assert pickle.loads(pickle.dumps(allowed)) == allowed

    @pytest.mark.parametrize("config", SECRET_CONFIGS, ids=named)
    def test_a_dict_has_secrets_only_when_asked(self, config):
        assert type(config).from_dict(config.to_dict(secrets=True)) == config
        with pytest.raises(sypy.ConfigError, match=r"secrets=True"):
            type(config).from_dict(config.to_dict())

    @pytest.mark.parametrize("config", [c for c in SECRET_CONFIGS if named(c) == "S3Config"])
    def test_options_keep_the_secrets_of_their_configs(self, config):
        options = sypy.SyncOptions(s3=config)
        assert "hunter2" not in repr(options)
        assert "hunter2" not in repr(options.to_dict())
        with pytest.raises(TypeError, match="pickle_secrets"):
            pickle.dumps(options)
        assert sypy.SyncOptions.from_dict(options.to_dict(secrets=True)) == options

    @pytest.mark.parametrize("secret", ["secret_access_key", "session_token"])
    def test_errors_do_not_show_a_secret(self, secret):
        with pytest.raises(sypy.ConfigError) as caught:
            sypy.S3Config(**{secret: "hunter2"})
        assert "hunter2" not in str(caught.value)
        with pytest.raises(TypeError) as caught:
            sypy.S3Config(**{secret: ["hunter2"]})
        assert "hunter2" not in str(caught.value)

    def test_the_fields_of_sy_python_are_there(self):
        sypy.S3Config(
            access_key_id="a",
            secret_access_key="b",
            session_token="c",
            region="r",
            endpoint="https://h",
            client_options=None,
        )
        sypy.S3Config(profile="p")
        sypy.GcsConfig(credentials_file="f", project_id="p", credentials_json=None, client_options=None)
        sypy.SshConfig(
            key_file="k", port=22, password="p", compression=True, proxy_jump="me@host", connect_timeout=5, pool_size=2
        )
        client = sypy.CloudClientOptions()
        assert (client.pool_max_idle_per_host, client.pool_idle_timeout_secs, client.connect_timeout_secs) == (
            50,
            30,
            5,
        )
        assert (client.request_timeout_secs, client.max_retries, client.retry_timeout_secs, client.allow_http) == (
            60,
            3,
            15,
            False,
        )

    def test_presets(self):
        fast, early = sypy.CloudClientOptions.high_throughput(), sypy.CloudClientOptions.low_latency()
        assert (fast.pool_max_idle_per_host, fast.request_timeout_secs, fast.max_retries) == (100, 120, 3)
        assert (early.pool_max_idle_per_host, early.request_timeout_secs, early.max_retries) == (20, 30, 2)

    @pytest.mark.parametrize(
        ("config", "fields"),
        [
            (sypy.S3Config, {"access_key_id": "a"}),
            (sypy.S3Config, {"secret_access_key": "a"}),
            (sypy.S3Config, {"session_token": "a"}),
            (sypy.S3Config, {"profile": "p", "anonymous": True}),
            (sypy.S3Config, {"endpoint": "host:9000"}),
            (sypy.S3Config, {"endpoint": "https://me:pw@host"}),
            (sypy.S3Config, {"bucket_style": "fancy"}),
            (sypy.S3Config, {"part_size": "1MB"}),
            (sypy.S3Config, {"region": ""}),
            (sypy.GcsConfig, {"credentials_file": "f", "token": "t"}),
            (sypy.GcsConfig, {"credentials_json": "key.json"}),
            (sypy.AzureConfig, {"key": "k", "sas_token": "s"}),
            (sypy.AzureConfig, {"client_secret": "s"}),
            (sypy.SshConfig, {"port": 0}),
            (sypy.SshConfig, {"port": 65536}),
            (sypy.SshConfig, {"key_file": "f", "key_data": "d"}),
            (sypy.SshConfig, {"user": "-oProxyCommand=x"}),
            (sypy.SshConfig, {"proxy_jump": "me:pw@host"}),
            (sypy.SshConfig, {"host_key_policy": "off"}),
            (sypy.SshConfig, {"pool_size": 0}),
            (sypy.CloudClientOptions, {"request_timeout_secs": 0}),
            (sypy.CloudClientOptions, {"proxy_url": "proxy"}),
        ],
        ids=lambda value: str(value) if isinstance(value, dict) else value.__name__,
    )
    def test_what_can_not_be_is_a_config_error(self, config, fields):
        with pytest.raises(sypy.ConfigError):
            config(**fields)

    def test_wrong_types_and_names(self):
        with pytest.raises(TypeError, match="did you mean 'region'"):
            sypy.S3Config(regin="x")
        with pytest.raises(TypeError, match="region must be text"):
            sypy.S3Config(region=1)
        with pytest.raises(TypeError, match="client_options must be a CloudClientOptions or None, not dict"):
            sypy.S3Config(client_options={})
        with pytest.raises(TypeError):
            sypy.S3Config("AKID")

    def test_paths_and_mappings_are_taken(self):
        config = sypy.SshConfig(key_file=pathlib.Path("/k"), options={"B": "2", "A": "1"})
        assert (config.key_file, config.options) == ("/k", {"A": "1", "B": "2"})

    def test_nothing_is_put_into_the_environment(self):
        before = dict(os.environ)
        sypy.S3Config(access_key_id="AKID", secret_access_key="hunter2")
        assert dict(os.environ) == before
        assert not hasattr(sypy.S3Config, "apply_to_env")

    def test_a_config_for_the_wrong_side_is_refused(self, tmp_path):
        with pytest.raises(sypy.ConfigError, match="source_options is for another kind of storage"):
            sypy.sync(tmp_path, tmp_path / "b", source_options=sypy.S3Config())


class TestPaths:
    @pytest.mark.parametrize(
        ("text", "scheme", "path"),
        [
            ("/abs/dir/", "file", "/abs/dir/"),
            ("rel", "file", "rel"),
            ("C:\\dir", "file", "C:\\dir"),
            ("file:///a%20b", "file", "/a b"),
            ("me@host:/p", "ssh", "/p"),
            ("sftp://host:22/p", "sftp", "/p"),
            ("s3://bucket/a/key", "s3", "a/key"),
            ("s3://bucket//a", "s3", "/a"),
            ("gs://bucket", "gs", ""),
            ("az://container/key/", "az", "key/"),
            ("opendal+webdav://host/key", "opendal+webdav", "key"),
        ],
    )
    def test_forms(self, text, scheme, path):
        parsed = sypy.parse_path(text)
        assert (parsed.scheme, parsed.path) == (scheme, path)
        assert parsed == sypy.SyncPath(text)
        assert sypy.SyncPath(str(parsed)) == parsed
        assert parsed.is_local == (scheme == "file")
        assert parsed.has_trailing_slash == path.endswith("/")
        assert pickle.loads(pickle.dumps(parsed)) == parsed

    def test_parts(self):
        host = sypy.SyncPath("ssh://me@host:2222/srv/data")
        assert (host.user, host.host, host.port, host.bucket, host.key) == ("me", "host", 2222, None, None)
        assert (host.is_remote, host.is_s3, host.is_gcs, host.is_daemon) == (True, False, False, False)
        bucket = sypy.SyncPath("s3://bucket/a/b/")
        assert (bucket.bucket, bucket.key, bucket.name, str(bucket.parent)) == ("bucket", "a/b/", "b", "s3://bucket/a")
        assert (bucket.is_remote, bucket.is_s3, bucket.host) == (False, True, None)

    def test_joining(self):
        path = sypy.SyncPath("s3://bucket")
        assert str(path / "a" / "b") == str(path.joinpath("a", "b")) == "s3://bucket/a/b"
        assert str(path / "/a") == "s3://bucket/a"
        assert os.fspath(sypy.SyncPath("/a") / b"\xff" / pathlib.Path("b")) == "/a/\udcff/b"
        with pytest.raises(TypeError):
            path / 1

    def test_values(self):
        assert {sypy.SyncPath("a"), sypy.SyncPath(b"a"), sypy.SyncPath(pathlib.Path("a"))} == {sypy.SyncPath("a")}
        assert sypy.SyncPath("a") != sypy.SyncPath("a/")
        assert sypy.SyncPath("a") != "a"
        assert repr(sypy.SyncPath("s3://b/k")) == "SyncPath('s3://b/k')"
        with pytest.raises(AttributeError):
            sypy.SyncPath("a").path = "b"

    def test_only_a_local_one_is_a_path_here(self):
        assert os.fspath(sypy.SyncPath("/a")) == "/a"
        assert pathlib.Path(sypy.SyncPath("/a")) == pathlib.Path("/a")
        with pytest.raises(TypeError, match="not on this machine"):
            os.fspath(sypy.SyncPath("s3://b/k"))

    def test_bytes_and_path_objects_are_local_whatever_they_look_like(self):
        assert sypy.SyncPath(b"s3://b/k").is_local
        assert sypy.SyncPath(pathlib.Path("host:name")).is_local
        for local in (sypy.SyncPath(b"host:name"), sypy.SyncPath(pathlib.Path("host:name"))):
            assert sypy.SyncPath(str(local)).is_local
            assert pickle.loads(pickle.dumps(local)) == local

    def test_bytes_that_are_not_utf8_are_surrogate_escapes(self):
        path = sypy.SyncPath(b"/a/\xff\n")
        assert path.path == "/a/\udcff\n"
        assert sypy.SyncPath(path.path) == path
        assert bytes(path) == b"/a/\xff\n"

    @pytest.mark.parametrize(
        "text", ["", b"", "a\0b", b"a\0b", "s3://", "http://host/x", "ssh://h:99999/x", "file://host/x"]
    )
    def test_what_names_no_location_is_a_config_error(self, text):
        with pytest.raises(sypy.ConfigError):
            sypy.SyncPath(text)

    @pytest.mark.parametrize("thing", [None, 1, [], object()], ids=["None", "1", "[]", "object"])
    def test_other_objects_are_a_type_error(self, thing):
        with pytest.raises(TypeError, match="a location is text"):
            sypy.SyncPath(thing)

    def test_a_password_in_a_url_is_refused_and_not_shown(self):
        with pytest.raises(sypy.ConfigError) as caught:
            sypy.SyncPath("ssh://me:hunter2@host/x")
        assert "hunter2" not in repr(caught.value)

    def test_universal_paths(self):
        upath = pytest.importorskip("upath")
        assert sypy.SyncPath(upath.UPath("/a/b")) == sypy.SyncPath("/a/b")
        assert sypy.SyncPath(upath.UPath("file:///a/b")) == sypy.SyncPath("/a/b")

        class Remote:  # As a UPath of s3fs, which is not installed here.
            protocol, path, storage_options = "s3", "bucket/key", {"anon": True}

        assert sypy.SyncPath(Remote()) == sypy.SyncPath("s3://bucket/key")

    def test_open_files_of_fsspec(self, tmp_path):
        fsspec = pytest.importorskip("fsspec")
        assert sypy.SyncPath(fsspec.open(str(tmp_path / "a"))) == sypy.SyncPath(str(tmp_path / "a"))
        assert sypy.SyncPath(fsspec.open(f"file://{tmp_path}/host:a")) == sypy.SyncPath(f"{tmp_path}/host:a")

        class Bucket:
            protocol = ("s3", "s3a")

        class Remote:
            fs, path = Bucket(), "bucket/key"

        assert sypy.SyncPath(Remote()) == sypy.SyncPath("s3://bucket/key")

    def test_a_cloud_path_is_not_downloaded(self):
        pytest.importorskip("cloudpathlib")
        from cloudpathlib.local import LocalS3Path

        path = LocalS3Path("s3://bucket/key")
        assert sypy.SyncPath(path) == sypy.SyncPath("s3://bucket/key")

    @given(st.binary(min_size=1, max_size=30).filter(lambda name: b"\0" not in name))
    def test_any_local_name_survives_every_copy(self, name):
        path = sypy.SyncPath(name)
        assert os.fsencode(path) == name
        assert sypy.SyncPath(str(path)).is_local
        assert pickle.loads(pickle.dumps(path)) == path == copy.deepcopy(path)


ERRORS = [
    (sypy.NotFoundError, FileNotFoundError),
    (sypy.AlreadyExistsError, FileExistsError),
    (sypy.PermissionDeniedError, PermissionError),
    (sypy.AuthenticationError, PermissionError),
    (sypy.HostKeyError, sypy.AuthenticationError),
    (sypy.NoSpaceError, OSError),
    (sypy.NetworkError, ConnectionError),
    (sypy.NetworkTimeoutError, TimeoutError),
    (sypy.UnsupportedError, io.UnsupportedOperation),
    (sypy.ConfigError, ValueError),
    (sypy.VerificationError, sypy.SyncError),
    (sypy.SourceChangedError, sypy.SyncError),
    (sypy.ConflictError, sypy.SyncError),
    (sypy.DeleteLimitError, sypy.SyncError),
    (sypy.LockedError, sypy.SyncError),
    (sypy.PartialSyncError, sypy.SyncError),
]


class TestErrors:
    @pytest.mark.parametrize(("error", "base"), ERRORS)
    def test_an_error_is_also_what_a_python_user_expects(self, error, base):
        made = error("why", path="a\udcff", action="read", hint="do that", retryable=True)
        assert isinstance(made, sypy.SyncError)
        assert isinstance(made, base)
        assert (made.error, made.path, made.action, made.hint, made.retryable) == (
            "why",
            "a\udcff",
            "read",
            "do that",
            True,
        )
        assert str(made) == "cannot read 'a\\udcff': why (do that)"
        if isinstance(made, OSError):
            assert made.filename == "a\udcff"
            assert made.strerror == "why"
        assert error.__module__ == "sypy"
        assert error.__doc__

    @pytest.mark.parametrize(("error", "base"), ERRORS)
    def test_errors_are_values(self, error, base):
        made = error("why", path="a", action="read", errno=5)
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            again = pickle.loads(pickle.dumps(made, protocol))
            assert again == made
            assert hash(again) == hash(made)
            assert (type(again), str(again), again.errno) == (error, str(made), 5)
        assert copy.copy(made) == made
        assert made != error("why", path="b", action="read", errno=5)
        assert made != sypy.SyncError("why", path="a", action="read", errno=5) or error is sypy.SyncError
        assert eval(repr(made), vars(sypy)) == made

    def test_a_class_says_its_errno(self):
        assert sypy.NotFoundError("x").errno == errno.ENOENT
        assert sypy.NoSpaceError("x", errno=errno.EDQUOT).errno == errno.EDQUOT
        assert sypy.SyncError("x").errno is None

    def test_an_error_without_a_path_is_its_message(self):
        assert str(sypy.SyncError("why")) == "why"
        assert str(sypy.SyncError("why", path="a")) == "'a': why"

    def test_a_name_is_printed_without_escape_sequences(self):
        assert "\x1b" not in str(sypy.SyncError("why", path="a\x1b[31m", action="read"))

    def test_an_error_is_a_dict_too(self):
        assert json.loads(json.dumps(sypy.NotFoundError("x", path="a", action="read").to_dict())) == {
            "type": "NotFoundError",
            "error": "x",
            "path": "a",
            "action": "read",
            "errno": errno.ENOENT,
            "hint": None,
            "retryable": False,
        }

    def test_a_partial_error_has_the_stats_and_keeps_them_in_a_pickle(self):
        failed = sypy.NotFoundError("gone", path="a", action="read")
        stats = sypy.SyncStats(files_created=3, errors=[failed, failed])
        with pytest.raises(sypy.PartialSyncError, match="2 items failed, the first: cannot read 'a': gone") as caught:
            stats.raise_for_errors()
        again = pickle.loads(pickle.dumps(caught.value))
        for error in (caught.value, again):
            assert error.stats == stats
            assert error.errors == [failed, failed]

    def test_notes_survive(self):
        error = sypy.ConfigError("x")
        error.custom = 1
        assert pickle.loads(pickle.dumps(error)).custom == 1


class TestStats:
    @pytest.mark.parametrize(
        "name", [*SY_PYTHON_STATS, "dirs_deleted", "files_metadata_updated", "retries", "peak_memory", "bytes_read"]
    )
    def test_every_promised_attribute_is_there(self, name):
        assert hasattr(sypy.SyncStats(), name)
        assert getattr(sypy.SyncStats, name).__doc__

    def test_text(self):
        stats = sypy.SyncStats(
            files_created=1204,
            files_updated=31,
            files_deleted=7,
            files_skipped=96310,
            bytes_transferred=4_100_000_000,
            duration_secs=38.2,
        )
        assert str(stats) == "1 204 created, 31 updated, 7 deleted, 96 310 unchanged, 4.1 GB in 38.2 s"
        assert stats.transfer_rate == pytest.approx(4.1e9 / 38.2)
        assert str(sypy.SyncStats(errors=[sypy.SyncError("x")])).endswith(", 1 failed")
        assert str(sypy.SyncStats(dry_run=True)).startswith("dry run: ")

    @pytest.mark.parametrize(
        ("seconds", "text"), [(0.04, "0.04 s"), (59.97, "1 min 0 s"), (192, "3 min 12 s"), (7380, "2 h 3 min")]
    )
    def test_times_for_people(self, seconds, text):
        assert str(sypy.SyncStats(duration_secs=seconds)).endswith(f"in {text}")

    @pytest.mark.parametrize(
        ("count", "text"),
        [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (999_949, "999.9 kB"), (999_950, "1.0 MB"), (2**63, "9.2 EB")],
    )
    def test_bytes_for_people(self, count, text):
        assert sypy.ProgressSnapshot(bytes=count).bytes_human == text

    def test_stats_are_values(self):
        failed = sypy.NotFoundError("gone", path="a\udcff", action="read")
        details = sypy.DryRunDetails([sypy.FileChange("a", "create", 3, reason="new")], bwlimit=3)
        stats = sypy.SyncStats(
            files_created=2, peak_memory=9, duration_secs=1.25, errors=[failed], dry_run=True, dry_run_details=details
        )
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            assert pickle.loads(pickle.dumps(stats, protocol)) == stats
        assert stats != sypy.SyncStats(files_created=2)
        assert not stats.success
        assert sypy.SyncStats().success
        with pytest.raises(AttributeError):
            stats.files_created = 3
        with pytest.raises(TypeError, match="did you mean 'files_created'"):
            sypy.SyncStats(file_created=1)

    def test_stats_as_json(self):
        stats = sypy.SyncStats(files_created=2, errors=[sypy.SyncError("x", path="\udcff")], dry_run=True)
        data = json.loads(stats.to_json())
        assert data == json.loads(stats.to_json(indent=2)) == json.loads(json.dumps(stats.to_dict()))
        assert (data["files_created"], data["success"], data["errors"][0]["path"]) == (2, False, "\udcff")
        assert data["dry_run_summary"]["total_files"] == 2

    def test_a_real_run_has_an_empty_summary(self):
        nothing = {"count": 0, "bytes": 0}
        assert sypy.SyncStats(files_created=2).dry_run_summary == {
            "would_create": nothing,
            "would_update": nothing,
            "would_delete": nothing,
            "total_files": 0,
            "total_bytes": 0,
        }


class TestDetails:
    def test_actions_are_their_names(self):
        create = sypy.ChangeAction.Create
        assert create == "create"
        assert "create" in [create]
        assert create != sypy.ChangeAction.Delete
        assert {create: 1}["create"] == 1
        assert f"{create}" == str(create) == "create"
        assert repr(create) == "ChangeAction.Create"
        assert pickle.loads(pickle.dumps(create)) == create

    def test_changes_are_values(self):
        for change in (
            sypy.FileChange("a\udcff", "update", 5, reason="size differs"),
            sypy.DirectoryChange("d", sypy.ChangeAction.Delete, reason="not in source"),
            sypy.SymlinkChange("l", "create", "a", reason="new"),
            sypy.ActionEvent("a", "metadata", kind="fifo", reason="metadata differs", size=1, old_size=2),
        ):
            assert pickle.loads(pickle.dumps(change)) == change
            assert json.loads(json.dumps(change.to_dict())) == change.to_dict()
            assert eval(repr(change), vars(sypy)).path == change.path
            with pytest.raises(AttributeError):
                change.path = "b"

    def test_an_action_has_one_of_four_names(self):
        with pytest.raises(ValueError, match="rename"):
            sypy.FileChange("a", "rename")

    def test_details_sort_changes_by_kind(self):
        details = sypy.DryRunDetails(
            [
                sypy.FileChange("a", "create", 5),
                sypy.FileChange("b", "skip", 7, reason="size limit"),
                sypy.DirectoryChange("d", "create"),
                sypy.SymlinkChange("l", "delete"),
            ],
            bwlimit=10,
        )
        assert [c.path for c in details.file_changes] == ["a", "b"]
        assert [c.path for c in details.directory_changes] == ["d"]
        assert [c.path for c in details.symlink_changes] == ["l"]
        assert details.total_changes == 3
        assert details.filtered_files == ["b"]
        assert details.files_by_action("skip")[0].skip_reason == "size limit"
        assert details.files_by_action(sypy.ChangeAction.Create) == [sypy.FileChange("a", "create", 5)]
        assert details.estimated_duration_secs == 0.5
        assert [c["type"] for c in details.all_changes()] == ["file", "file", "directory", "symlink"]


class TestProgress:
    def test_a_snapshot_is_a_value(self):
        snapshot = sypy.ProgressSnapshot(bytes=5, total_bytes=10, current_file="a\udcff", elapsed_secs=1.5)
        assert pickle.loads(pickle.dumps(snapshot)) == snapshot
        assert snapshot.transferring == ["a\udcff"]

    def test_nothing_is_said_of_the_end_before_it_is_known(self):
        early = sypy.ProgressSnapshot(bytes=5, total_bytes=10, bytes_per_sec=5)
        assert (early.percentage, early.eta_secs) == (None, None)
        late = sypy.ProgressSnapshot(bytes=5, total_bytes=10, bytes_per_sec=5, totals_are_final=True)
        assert (late.percentage, late.eta_secs) == (50.0, 1.0)
        assert sypy.ProgressSnapshot(totals_are_final=True).percentage is None


class TestPackage:
    def test_names_are_in_order_and_there(self):
        assert sypy.__all__ == sorted(sypy.__all__)
        assert all(hasattr(sypy, name) for name in sypy.__all__)

    @pytest.mark.parametrize("name", [name for name in sypy.__all__ if isinstance(getattr(sypy, name), type)])
    def test_classes_belong_to_the_package(self, name):
        assert getattr(sypy, name).__module__ == "sypy"
        assert pickle.loads(pickle.dumps(getattr(sypy, name))) is getattr(sypy, name)

    def test_import_leaves_heavy_modules_alone(self):
        heavy = "asyncio dataclasses datetime logging pathlib re rich typing json enum importlib.util".split()
        code = (
            f"import sys; before = set(sys.modules); import sypy; print(*(set({heavy}) & (set(sys.modules) - before)))"
        )
        done = subprocess.run(
            [sys.executable, "-S", "-c", code],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": ":".join(sys.path)},
        )
        assert done.stdout.split() == []
        assert done.returncode == 0, done.stderr

    def test_a_callback_that_can_not_be_called_is_refused_before_the_run(self, tmp_path):
        for name in ("progress", "progress_callback", "on_event"):
            with pytest.raises(TypeError, match=f"{name} must be callable, not int"):
                sypy.sync(tmp_path, tmp_path / "b", **{name: 5})
        with pytest.raises(sypy.ConfigError, match="at least 1"):
            sypy.sync(tmp_path, tmp_path / "b", progress_frequency_ms=0)
        with pytest.raises(TypeError):
            sypy.sync(tmp_path, tmp_path / "b", progress_frequency_ms="often")
        with pytest.raises(TypeError, match="options must be a SyncOptions"):
            sypy.sync_with_options(tmp_path, tmp_path / "b", {"delete": True})
        assert not (tmp_path / "b").exists()

    @pytest.mark.parametrize("url", ["nowhere.invalid:path", "sftp://nowhere.invalid/path"])
    def test_a_host_that_is_not_there_is_a_connection_error(self, url, tmp_path):
        (tmp_path / "a").touch()
        for source, dest in ((tmp_path / "a", url), (url, tmp_path / "b")):
            with pytest.raises(sypy.NetworkError) as caught:
                sypy.sync(source, dest)
            assert isinstance(caught.value, ConnectionError)
