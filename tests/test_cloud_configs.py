"""Who asks an object store: configs of both sides, functions that give credentials, sessions of other packages.

The store is a server in this process that only lists, and writes down who asked.
"""

import datetime
import pickle
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

import running
import sypy
from trees import build, keys

SECRET = "hunter2"
NOW = datetime.datetime.now(datetime.timezone.utc)
WRONG = [
    (None, TypeError, "mapping"),
    ([("access_key_id", "a")], TypeError, "mapping"),
    ({1: "a"}, TypeError, "mapping"),
    ({"access_key_id": 1}, TypeError, "access_key_id of credentials must be text, not int"),
    ({}, sypy.ConfigError, "must have access_key_id"),
    ({"access_key_id": "a"}, sypy.ConfigError, "must have secret_access_key"),
    ({"access_key_id": "a", "secret_access_key": SECRET, "token": "t"}, sypy.ConfigError, "unknown field"),
    ({"expires": NOW.replace(tzinfo=None)}, sypy.ConfigError, "aware"),
    ({"expires": 7}, TypeError, "expires"),
    ({"access_key_id": "a", "secret_access_key": SECRET, "expires": "soon"}, sypy.ConfigError, "expires"),
]
CLIENT = sypy.CloudClientOptions(allow_http=True, max_retries=0, connect_timeout_secs=2)


class Bucket:
    """A bucket that lists `keys`, to whoever asks."""

    def __init__(self, names):
        self.names = names
        self.askers, self.queries, self.copies = [], [], []
        bucket = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                signed = re.search(r"Credential=([^/]+)/", self.headers.get("authorization", ""))
                bucket.askers.append(signed[1] if signed else None)
                bucket.queries.append(self.path)
                body = bucket.page(self.path).encode()
                self.send_response(200)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_HEAD(self):
                self.send_response(404)
                self.send_header("content-length", "0")
                self.end_headers()

            def do_PUT(self):
                self.rfile.read(int(self.headers.get("content-length", 0)))
                bucket.copies.append(self.headers.get("x-amz-copy-source"))
                self.send_response(403)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def page(self, query):
        prefix = re.search(r"prefix=([^&]*)", query)[1].replace("%2F", "/")
        matching, folded, items = [name for name in self.names if name.startswith(prefix)], set(), []
        for name in matching[: 1 if "max-keys=1" in query else None]:
            rest = name[len(prefix) :]
            if "delimiter" in query and "/" in rest:
                folded.add(prefix + rest.split("/")[0] + "/")
                continue
            items.append(
                f"<Contents><Key>{name}</Key><LastModified>2026-11-24T10:00:00.000Z</LastModified>"
                f'<ETag>"e"</ETag><Size>{0 if name.endswith("/") else 3}</Size></Contents>'
            )
        items += [f"<CommonPrefixes><Prefix>{name}</Prefix></CommonPrefixes>" for name in sorted(folded)]
        return f"<ListBucketResult><IsTruncated>false</IsTruncated>{''.join(items)}</ListBucketResult>"


@pytest.fixture
def bucket():
    bucket = Bucket(["a", "d/x", "d/y/z", "e"])
    yield bucket
    bucket.server.shutdown()
    bucket.server.server_close()


def account(bucket, name, **fields):
    return sypy.S3Config(
        access_key_id=name, secret_access_key=SECRET, endpoint=bucket.url, client_options=CLIENT, **fields
    )


def function(bucket, give):
    return sypy.S3Config(credentials=give, endpoint=bucket.url, client_options=CLIENT)


def key(name="AKID", **more):
    return {"access_key_id": name, "secret_access_key": SECRET, **more}


def top_level():
    return key()


class TestSides:
    def test_a_config_for_one_side_counts_more_than_one_for_both(self, bucket):
        sides = {"source_options": account(bucket, "one"), "dest_options": account(bucket, "two")}
        sypy.sync("s3://b/d/", "s3://b/c/", s3=account(bucket, "both"), dry_run=True, **sides)
        assert set(bucket.askers) == {"one", "two"}
        assert {who for who, query in zip(bucket.askers, bucket.queries, strict=True) if "prefix=d" in query} == {"one"}
        assert {who for who, query in zip(bucket.askers, bucket.queries, strict=True) if "prefix=c" in query} == {"two"}

    def test_the_other_side_has_what_is_for_both(self, bucket):
        sypy.sync(
            "s3://b/d/", "s3://b/c/", s3=account(bucket, "both"), dest_options=account(bucket, "two"), dry_run=True
        )
        assert set(bucket.askers) == {"both", "two"}

    def test_options_as_an_object_carry_configs(self, bucket, tmp_path):
        options = sypy.SyncOptions(s3=account(bucket, "one"), dry_run=True)
        assert sypy.sync_with_options("s3://b/", tmp_path / "new", options).files_created == 4
        assert set(bucket.askers) == {"one"}

    def test_threads_with_accounts_of_their_own_never_mix(self, bucket):
        failures = []

        def work(name):
            others = Bucket(["a"])
            for config in (account(others, name), function(others, lambda: key(name))):
                for _ in range(10):
                    sypy.ls("s3://b/", s3=config)
            failures.extend(who for who in others.askers if who != name)
            others.server.shutdown()
            others.server.server_close()

        threads = [threading.Thread(target=work, args=(f"account{n}",)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []

    def test_one_account_does_not_copy_what_another_reads(self, bucket):
        one, two = (function(bucket, give) for give in (lambda: key("one"), lambda: key("two")))
        sypy.sync("s3://b/d/", "s3://b/c/", s3=one, on_error="collect")
        assert set(filter(None, bucket.copies)) == {"/b/d/x", "/b/d/y/z"}
        bucket.copies.clear()
        sypy.sync("s3://b/d/", "s3://b/c/", source_options=one, dest_options=two, on_error="collect")
        assert not any(bucket.copies)

    def test_without_credentials_nothing_is_sent_nor_changed(self, bucket, src):
        build(src, {"a": "1"})
        nobody = sypy.S3Config(endpoint=bucket.url, profile="default", client_options=CLIENT)
        for source, dest in ((f"{src}/", "s3://b/c/"), ("s3://b/d/", f"{src}/")):
            with pytest.raises(sypy.AuthenticationError, match="no credentials for S3"):
                sypy.sync(source, dest, s3=nobody)
        assert bucket.askers == []
        assert keys(src) == {"a"}

    def test_anonymous_requests_are_not_signed(self, bucket):
        sypy.ls("s3://b/", s3=sypy.S3Config(anonymous=True, endpoint=bucket.url, client_options=CLIENT))
        assert bucket.askers == [None]

    def test_plain_http_has_to_be_allowed(self, bucket):
        config = account(bucket, "one").replace(client_options=None)
        with pytest.raises(sypy.ConfigError, match="allow_http"):
            sypy.ls("s3://b/", s3=config)
        assert bucket.askers == []

    def test_nobody_there_is_a_network_error(self):
        config = sypy.S3Config(**key(), endpoint="http://127.0.0.1:1", client_options=CLIENT)
        with pytest.raises(sypy.NetworkError):
            sypy.ls("s3://b/", s3=config)


class TestFunctions:
    def test_it_is_called_on_the_calling_thread(self, bucket, tmp_path):
        threads = []

        def give():
            threads.append(threading.current_thread())
            return key("temporary", session_token="t", expires=NOW + datetime.timedelta(hours=1))

        config = function(bucket, give)
        sypy.sync("s3://b/d/", tmp_path / "new", s3=config, dry_run=True)
        assert [entry.path for entry in sypy.ls("s3://b/", s3=config)] == ["a", "d", "e"]
        assert [entry.path for entry in sypy.ls_iter("s3://b/", s3=config)] == ["a", "d", "e"]
        assert threads == [threading.current_thread()] * 3
        assert set(bucket.askers) == {"temporary"}

    @pytest.mark.parametrize("expires", [NOW, "2020-01-01T00:00:00Z"], ids=["datetime", "text"])
    def test_it_is_called_again_when_they_run_out(self, bucket, expires):
        given = []

        def give():
            given.append(f"account{len(given)}")
            return key(given[-1], expires=expires)

        sypy.ls("s3://b/", recursive=True, max_depth=9, s3=function(bucket, give))
        assert len(given) > 1
        assert bucket.askers[-1] == given[-1] != given[0]

    @pytest.mark.parametrize("expires", [None, NOW + datetime.timedelta(days=1), "2099-01-01T00:00:00+02:00"], ids=type)
    def test_it_is_called_once_while_they_last(self, bucket, expires):
        given = []

        def give():
            given.append(1)
            return key(expires=expires)

        sypy.ls("s3://b/", recursive=True, max_depth=9, s3=function(bucket, give))
        assert given == [1]

    def test_an_exception_ends_the_run_and_is_raised(self, bucket, src):
        build(src, {"a": "1"})

        def give():
            raise LookupError("the vault is closed")

        config = function(bucket, give)
        with pytest.raises(LookupError, match="the vault is closed"):
            sypy.sync(f"{src}/", "s3://b/c/", s3=config)
        with pytest.raises(LookupError):
            sypy.ls("s3://b/", s3=config)
        entries = sypy.ls_iter("s3://b/", s3=config)
        with pytest.raises(LookupError):
            next(entries)
        assert list(entries) == []
        assert bucket.askers == []

    def test_an_interrupt_in_it_stops_the_run(self, bucket):
        def give():
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            sypy.ls("s3://b/", s3=function(bucket, give))

    @pytest.mark.parametrize(
        ("answer", "error", "match"),
        [pytest.param(*case, id=str(number)) for number, case in enumerate(WRONG)],
    )
    def test_a_wrong_answer_says_what_is_wrong_and_shows_no_value(self, bucket, answer, error, match):
        with pytest.raises(error, match=match) as caught:
            sypy.ls("s3://b/", s3=function(bucket, lambda: answer))
        assert SECRET not in str(caught.value)
        assert bucket.askers == []

    @pytest.mark.parametrize("cls", [sypy.S3Config, sypy.GcsConfig, sypy.AzureConfig])
    def test_configs_with_one_are_values_too(self, cls):
        config, other = cls(credentials=top_level), cls(credentials=lambda: {"token": "t"})
        assert config == cls(credentials=top_level) != other
        assert hash(config) == hash(cls(credentials=top_level))
        assert repr(config) == f"{cls.__name__}(credentials=<function>)"
        assert config.credentials is top_level
        assert config.to_dict()["credentials"] is top_level
        assert cls.from_dict(config.to_dict()) == config
        assert config.replace(credentials=None) == cls()
        assert pickle.loads(pickle.dumps(config)) == config
        with pytest.raises(TypeError, match="can't be pickled"):
            pickle.dumps(other)
        with pytest.raises(TypeError, match="credentials must be a function or None, not str"):
            cls(credentials="AKID")

    @pytest.mark.parametrize(
        ("cls", "fields"),
        [
            (sypy.S3Config, {"access_key_id": "a", "secret_access_key": "b"}),
            (sypy.S3Config, {"profile": "p"}),
            (sypy.S3Config, {"anonymous": True}),
            (sypy.GcsConfig, {"token": "t"}),
            (sypy.GcsConfig, {"credentials_file": "f"}),
            (sypy.AzureConfig, {"key": "k"}),
            (sypy.AzureConfig, {"connection_string": "s"}),
        ],
        ids=str,
    )
    def test_who_asks_is_said_once(self, cls, fields):
        with pytest.raises(sypy.ConfigError, match="and credentials are both set"):
            cls(credentials=top_level, **fields)

    def test_only_object_stores_have_them(self):
        for cls in (sypy.SshConfig, sypy.CloudClientOptions):
            with pytest.raises(TypeError, match="credentials"):
                cls(credentials=top_level)


class Frozen:
    access_key, secret_key, token = "AKID", SECRET, None


class Credentials:
    """As botocore's that refresh themselves."""

    _expiry_time = None

    def get_frozen_credentials(self):
        return Frozen


class Session:
    """As botocore's."""

    def __init__(self, credentials=None, **config):
        self.credentials, self.config = credentials, config
        self.full_config = {"profiles": {}, "services": {}}

    def get_credentials(self):
        return self.credentials

    def get_config_variable(self, name):
        return self.config.get(name)

    def get_scoped_config(self):
        return {}


class Boto3Session:
    def __init__(self, session):
        self._session = session

    def get_credentials(self):
        return self._session.get_credentials()


class TestSessions:
    def test_a_boto3_session_gives_region_and_credentials(self, bucket):
        for session in (
            Session(Credentials(), region="eu-west-1"),
            Boto3Session(Session(Credentials(), region="eu-west-1")),
        ):
            config = sypy.S3Config.from_boto3(session, endpoint=bucket.url, client_options=CLIENT)
            assert config.region == "eu-west-1"
            assert sypy.S3Config.from_boto3(session, region="other").region == "other"
            assert SECRET not in repr(config) + str(config.to_dict())
            sypy.ls("s3://b/", s3=config)
        assert set(bucket.askers) == {"AKID"}

    def test_what_is_no_session_is_refused(self):
        with pytest.raises(TypeError, match="boto3"):
            sypy.S3Config.from_boto3("session")
        with pytest.raises(sypy.AuthenticationError, match="no credentials"):
            sypy.S3Config.from_boto3(Session())
        with pytest.raises(TypeError, match=r"google\.auth"):
            sypy.GcsConfig.from_google_auth("token")

    def test_credentials_of_a_session_are_not_pickled(self):
        with pytest.raises(TypeError, match="can't be pickled"):
            pickle.dumps(sypy.S3Config.from_boto3(Credentials()))

    def test_google_credentials_are_refreshed_when_they_have_run_out(self, monkeypatch):
        class Google:
            token, expiry, valid = None, None, False

            def refresh(self, request):
                self.token, self.valid = "new", True
                self.expiry = datetime.datetime.now(datetime.timezone.utc).replace(tzinfo=None)
                self.expiry += datetime.timedelta(hours=1)

        monkeypatch.setattr("sypy._credentials._google_request", object)
        credentials = Google()
        config = sypy.GcsConfig.from_google_auth(credentials, project_id="p")
        assert config.project_id == "p"
        answer = config.credentials()
        assert answer["token"] == "new"
        assert answer["expires"].tzinfo is not None
        credentials.refresh = None
        assert config.credentials() == answer


class TestFields:
    def test_tags_are_a_mapping(self):
        config = sypy.S3Config(tags={"project": "x", "a": "1"})
        assert config.tags == {"a": "1", "project": "x"}
        assert sypy.S3Config.from_dict(config.to_dict()) == config == pickle.loads(pickle.dumps(config))
        assert hash(config) == hash(config.replace())
        assert sypy.S3Config().tags == {}
        for wrong in ("a=b", {"a": 1}, ["a"]):
            with pytest.raises((TypeError, ValueError)):
                sypy.S3Config(tags=wrong)


class TestCommandLine:
    def test_profiles_and_endpoints_of_both_sides(self, command, bucket, tmp_path, monkeypatch):
        credentials = tmp_path / "credentials"
        credentials.write_text(
            "".join(f"[{name}]\naws_access_key_id={name}\naws_secret_access_key=s\n" for name in ("one", "two"))
        )
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(credentials))
        flags = ["--s3-endpoint", bucket.url, "--allow-http", "--profile", "one", "--dest-profile", "two", "-n"]
        done = running.run([*command, "s3://b/d/", "s3://b/c/", *flags])
        assert done.returncode == 0, done.stderr
        assert set(bucket.askers) == {"one", "two"}
        assert {who for who, query in zip(bucket.askers, bucket.queries, strict=True) if "prefix=c" in query} == {"two"}

    @pytest.mark.parametrize(
        ("args", "says"),
        [
            (["a/", "b/", "--region", "r"], "--region is of no use: neither side is in S3"),
            (["s3://a/", "b/", "--sse", "AES256"], "--sse is of no use: the destination is not in S3"),
            (["s3://a/", "b/", "--dest-profile", "p"], "--dest-profile is of no use: the destination is not in S3"),
            (["s3://a/", "b/", "--gcs-anonymous"], "--gcs-anonymous is of no use"),
            (["s3://a/", "b/", "--profile", "p", "--s3-anonymous"], "profile and anonymous are both set"),
            (["ls", "a/", "--allow-http"], "--allow-http is of no use: the location is not in an object store"),
            (
                ["a/", "b/", "--opendal-config", "f"],
                "--opendal-config is of no use: neither side is in a service of OpenDAL",
            ),
            (
                ["opendal+ftp://h/", "b/", "--dest-opendal-config", "f"],
                "--dest-opendal-config is of no use: the destination is not in a service of OpenDAL",
            ),
        ],
        ids=str,
    )
    def test_a_flag_that_is_of_no_use_is_refused(self, command, args, says):
        done = running.run([*command, *args])
        assert done.returncode == 1
        assert says in done.stderr

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            (None, "options"),
            ("user me\n", "line 1 of"),
            ("# fine\n\npasswort = hunter2\n", "line 3 of"),
            ("password = hunter2\npassword = hunter2\n", "line 2 of"),
            ("password =\n", "line 1 of"),
            ("endpoint = ftp://me:hunter2@h\n", "endpoint must not hold"),
            ("disable_create_dir = hunter2\n", "disable_create_dir must be"),
        ],
        ids=str,
    )
    def test_a_file_of_options_that_is_wrong_is_refused_and_not_shown(self, command, tmp_path, text, says):
        path = tmp_path / "options"
        if text is not None:
            path.write_text(text)
        done = running.run([*command, "opendal+ftp://h/", f"{tmp_path}/x", "--opendal-config", path])
        assert done.returncode == 1
        assert says in done.stderr and "hunter2" not in done.stderr
        assert "opendal_config" not in done.stderr

    def test_no_flag_takes_a_secret(self, command):
        text = running.run([*command, "--help"]).stdout
        assert "Object stores:" in text
        assert not re.search(r"--\S*(secret|token|password)", text)
