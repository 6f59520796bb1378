"""Object stores that tests start themselves, on loopback: installed once into the user's cache, ended by their process.

`python tests/servers.py install` installs all of them. A server that can't be had skips the tests that need it; where
`CI` is in the environment it fails them.

A server says how to reach it (`env`: what a run needs in its environment) and makes buckets; a bucket is what a test
looks into, and fills, behind sypy's back. For another kind of storage write one more pair of these.
"""

import ctypes
import dataclasses
import fcntl
import functools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from xml.etree import ElementTree

import pytest

from fault_proxy import Proxy, azure_kind, gcs_kind, s3_kind

# As they were before any test set variables of its own.
ENVIRONMENT = dict(os.environ)
HOME = Path(ENVIRONMENT.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sypy" / "servers"
VERSITYGW = "github.com/versity/versitygw/cmd/versitygw@v1.8.0"
AZURITE = "3.37.0"
FAKE_GCS = "github.com/fsouza/fake-gcs-server@v1.56.1"
# The account that every emulator of Azure has, as everybody may know.
AZURE_ACCOUNT = "devstoreaccount1"
AZURE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
REGION = "us-east-1"
READY_WITHIN = 60


class Missing(Exception):
    """Why a server can't be had here."""


# Installing.


def go_binary(name: str, module: str) -> Path:
    """Builds a Go program once; another version of it is another file."""
    binary = HOME / f"{name}-{module.rpartition('@')[2]}"
    if binary.is_file():
        return binary
    if shutil.which("go") is None:
        raise Missing(f"{name} is built with Go, which is not installed")
    HOME.mkdir(parents=True, exist_ok=True)
    with open(HOME / f".{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not binary.is_file():
            with tempfile.TemporaryDirectory(dir=HOME) as place:
                environment = ENVIRONMENT | {"GOBIN": place, "GOFLAGS": "-buildvcs=false"}
                command = ["go", "install", "-ldflags=-s -w", module]
                done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
                if done.returncode != 0:
                    raise Missing(f"go install {module} failed: {done.stderr.strip()[-500:]}")
                os.replace(f"{place}/{name}", binary)
    return binary


def versitygw_binary() -> Path:
    return go_binary("versitygw", VERSITYGW)


def moto_command() -> list[str]:
    # It comes with the packages for tests.
    try:
        import flask  # noqa: F401
        import flask_cors  # noqa: F401
        import moto  # noqa: F401
    except ImportError as error:
        raise Missing(f"moto is not installed: {error}") from error
    return [sys.executable, "-m", "moto.server"]


def npm_binary(name: str, package: str, version: str) -> Path:
    place = HOME / f"{package}-{version}"
    binary = place / "node_modules" / ".bin" / name
    if (place / "complete").is_file():
        return binary
    if shutil.which("npm") is None:
        raise Missing(f"{package} is installed with npm, which is not there")
    place.mkdir(parents=True, exist_ok=True)
    with open(HOME / f".{package}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (place / "complete").is_file():
            command = [
                "npm",
                "install",
                "--silent",
                "--no-audit",
                "--no-fund",
                "--prefix",
                place,
                f"{package}@{version}",
            ]
            done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise Missing(f"npm install {package} failed: {done.stderr.strip()[-500:]}")
            (place / "complete").touch()
    return binary


def azurite_binary() -> Path:
    try:
        import azure.storage.blob  # noqa: F401
    except ImportError as error:
        raise Missing(f"azure-storage-blob is not installed: {error}") from error
    return npm_binary("azurite-blob", "azurite", AZURITE)


def fake_gcs_binary() -> Path:
    return go_binary("fake-gcs-server", FAKE_GCS)


INSTALLERS: dict[str, Callable[[], object]] = {
    "versitygw": versitygw_binary,
    "moto": moto_command,
    "azurite": azurite_binary,
    "fake_gcs": fake_gcs_binary,
}


# Starting.


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def end_with_parent() -> None:
    """No server outlives the tests, however they end."""
    parent_death_signal = 1
    ctypes.CDLL(None).prctl(parent_death_signal, signal.SIGKILL)


@dataclasses.dataclass
class Started:
    process: subprocess.Popen
    url: str
    log: Path

    def wait_until_ready(self, path: str) -> None:
        end = time.monotonic() + READY_WITHIN
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        while time.monotonic() < end and self.process.poll() is None:
            try:
                opener.open(self.url + path, timeout=2).close()
                return
            except urllib.error.HTTPError as error:
                if error.code < 500:
                    return
            except OSError:
                pass
            time.sleep(0.02)
        raise Missing(f"the server did not start: {self.log.read_text(errors='replace')[-500:]}")

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


def start(command: list, port: int, place: Path, ready: str = "/", **variables: str) -> Started:
    log = place / "log"
    with open(log, "wb") as out:
        process = subprocess.Popen(
            [os.fspath(part) for part in command],
            stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=place, env=ENVIRONMENT | variables,
            start_new_session=True, preexec_fn=end_with_parent,
        )  # fmt: skip
    started = Started(process, f"http://127.0.0.1:{port}", log)
    try:
        started.wait_until_ready(ready)
    except BaseException:
        started.end()
        raise
    return started


# What tests see of them.


class Server:
    """A server, or a proxy in front of it."""

    def behind(self, proxy: Proxy):
        """The same server as seen through the proxy."""
        return dataclasses.replace(self, url=proxy.url)


@dataclasses.dataclass(frozen=True)
class Bucket:
    """What all of them have alike; each kind says what `scheme` is, and what is `listed` of each object."""

    server: Server
    name: str

    def url(self, key: str = "") -> str:
        return f"{self.scheme}://{self.name}/{key}"

    def all_keys(self, prefix: str = "") -> set[str]:
        return set(self.listed(prefix))

    def objects(self, prefix: str = "") -> dict[str, bytes]:
        return {key[len(prefix) :]: self.get(key) for key in self.all_keys(prefix)}

    def tags(self, prefix: str = "") -> dict[str, str]:
        """Key to ETag and time: what changes with any write."""
        return {key: f"{item['ETag']} {item['LastModified']}" for key, item in self.listed(prefix).items()}


def new_name() -> str:
    return f"t-{uuid.uuid4().hex[:20]}"


def in_bytes(content: bytes | str) -> bytes:
    return content.encode() if isinstance(content, str) else content


@dataclasses.dataclass(frozen=True)
class S3Server(Server):
    name: str
    url: str
    access_key_id: str
    secret_access_key: str
    # What it keeps keys in: with real directories some keys are impossible.
    any_key: bool
    checks_sums: bool
    kind_of: Callable = s3_kind

    @property
    def env(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": self.access_key_id,
            "AWS_SECRET_ACCESS_KEY": self.secret_access_key,
            "AWS_REGION": REGION,
            "AWS_ALLOW_HTTP": "true",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    @property
    def config(self) -> dict:
        """The same as fields of `sypy.S3Config`."""
        return {
            "endpoint": self.url,
            "access_key_id": self.access_key_id,
            "secret_access_key": self.secret_access_key,
            "region": REGION,
        }

    @functools.cached_property
    def client(self):
        """boto3's, as another program that uses the bucket."""
        import boto3
        from botocore.config import Config

        config = Config(
            s3={"addressing_style": "path"}, retries={"max_attempts": 1}, connect_timeout=5, read_timeout=60,
            max_pool_connections=32, request_checksum_calculation="when_required", response_checksum_validation="when_required",
        )  # fmt: skip
        session = boto3.session.Session(
            aws_access_key_id=self.access_key_id, aws_secret_access_key=self.secret_access_key, region_name=REGION
        )
        return session.client("s3", endpoint_url=self.url, config=config)

    def bucket(self, **options) -> "S3Bucket":
        """A new one."""
        name = new_name()
        self.client.create_bucket(Bucket=name, **options)
        return S3Bucket(self, name)


class S3Bucket(Bucket):
    scheme = "s3"

    @property
    def _client(self):
        return self.server.client

    def put(self, key: str, content: bytes | str = b"", metadata: Mapping[str, str] | None = None, **options) -> str:
        """Returns the ETag."""
        done = self._client.put_object(
            Bucket=self.name,
            Key=key,
            Body=in_bytes(content),
            Metadata=dict(metadata or {}),
            ContentType="application/x-test",
            **options,
        )
        return done["ETag"].strip('"')

    def put_parts(self, key: str, parts: list[bytes], algorithm: str | None = None, **options) -> str:
        """As other programs do it: with sums of the parts by some algorithm, and one over those. Returns the ETag."""
        about = {"Bucket": self.name, "Key": key}
        kind = {"ChecksumAlgorithm": algorithm, "ChecksumType": "COMPOSITE"} if algorithm else {}
        about["UploadId"] = self._client.create_multipart_upload(**about, **kind, **options)["UploadId"]
        sent = []
        for number, part in enumerate(parts, 1):
            own = {"ChecksumAlgorithm": algorithm} if algorithm else {}
            done = self._client.upload_part(**about, PartNumber=number, Body=part, **own)
            sums = {name: value for name, value in done.items() if name == f"Checksum{algorithm}"}
            sent.append({"PartNumber": number, "ETag": done["ETag"], **sums})
        kind.pop("ChecksumAlgorithm", None)
        done = self._client.complete_multipart_upload(**about, **kind, MultipartUpload={"Parts": sent})
        return done["ETag"].strip('"')

    def begin_upload(self, key: str) -> str:
        return self._client.create_multipart_upload(Bucket=self.name, Key=key)["UploadId"]

    def get(self, key: str) -> bytes:
        return self._client.get_object(Bucket=self.name, Key=key)["Body"].read()

    def head(self, key: str) -> dict:
        return self._client.head_object(Bucket=self.name, Key=key, ChecksumMode="ENABLED")

    def in_parts(self, key: str) -> bool:
        """Was it sent in parts?"""
        return "-" in self.head(key)["ETag"]

    def metadata(self, key: str) -> dict[str, str]:
        return {name.lower(): value for name, value in self.head(key)["Metadata"].items()}

    def delete(self, key: str) -> None:
        self._client.delete_object(Bucket=self.name, Key=key)

    def listed(self, prefix: str = "") -> dict[str, dict]:
        """What a listing says of each object."""
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=prefix)
        return {item["Key"]: item for page in pages for item in page.get("Contents", [])}

    def uploads(self) -> list[str]:
        """Keys of uploads in parts that are neither completed nor given up."""
        answer = self._client.list_multipart_uploads(Bucket=self.name)
        return [upload["Key"] for upload in answer.get("Uploads", [])]

    def abort_uploads(self) -> None:
        for upload in self._client.list_multipart_uploads(Bucket=self.name)["Uploads"]:
            self._client.abort_multipart_upload(Bucket=self.name, Key=upload["Key"], UploadId=upload["UploadId"])


@dataclasses.dataclass(frozen=True)
class AzureServer(Server):
    name: str
    url: str
    kind_of: Callable = azure_kind

    @property
    def env(self) -> dict[str, str]:
        return {
            "AZURE_STORAGE_ACCOUNT": AZURE_ACCOUNT,
            "AZURE_STORAGE_KEY": AZURE_KEY,
            "AZURE_STORAGE_ENDPOINT": self.url,
            "AZURE_ALLOW_HTTP": "true",
            "AWS_ALLOW_HTTP": "true",
        }

    @functools.cached_property
    def client(self):
        from azure.storage.blob import BlobServiceClient

        return BlobServiceClient(self.url, credential={"account_name": AZURE_ACCOUNT, "account_key": AZURE_KEY})

    def bucket(self) -> "AzureContainer":
        name = new_name()
        self.client.create_container(name)
        return AzureContainer(self, name)


class AzureContainer(Bucket):
    scheme = "az"

    @property
    def _client(self):
        return self.server.client.get_container_client(self.name)

    def put(self, key: str, content: bytes | str = b"", metadata: Mapping[str, str] | None = None) -> str:
        return (
            self._client.upload_blob(key, in_bytes(content), metadata=metadata, overwrite=True)
            .get_blob_properties()
            .etag
        )

    def get(self, key: str) -> bytes:
        return self._client.download_blob(key).readall()

    def delete(self, key: str) -> None:
        self._client.delete_blob(key)

    def metadata(self, key: str) -> dict[str, str]:
        return {
            name.lower(): value
            for name, value in self._client.get_blob_client(key).get_blob_properties().metadata.items()
        }

    def listed(self, prefix: str = "") -> dict[str, dict]:
        blobs = self._client.list_blobs(name_starts_with=prefix)
        return {blob.name: {"Size": blob.size, "ETag": blob.etag, "LastModified": blob.last_modified} for blob in blobs}

    def uploads(self) -> list[str]:
        """Blobs that are nothing but blocks."""
        listed = self._client.list_blobs(include=["uncommittedblobs"])
        return sorted({blob.name for blob in listed} - self.all_keys())


@dataclasses.dataclass(frozen=True)
class GcsServer(Server):
    name: str
    url: str
    # Has it uploads in parts? Without, sypy has to do without.
    parts: bool
    kind_of: Callable = gcs_kind

    @property
    def env(self) -> dict[str, str]:
        # A service that the environment names is shown no credentials of the machine.
        return {"STORAGE_EMULATOR_HOST": self.url, "AWS_ALLOW_HTTP": "true"}

    def ask(self, method: str, path: str, body: bytes | dict | None = None, kind: str = "application/json") -> bytes:
        """One request to the JSON API, as another program that uses the bucket."""
        data = json.dumps(body).encode() if isinstance(body, dict) else body
        headers = {} if data is None else {"Content-Type": kind}
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=60) as answer:
            return answer.read()

    def bucket(self) -> "GcsBucket":
        name = new_name()
        self.ask("POST", "/storage/v1/b?project=test", {"name": name})
        return GcsBucket(self, name)


class GcsBucket(Bucket):
    scheme = "gs"

    @property
    def _objects(self) -> str:
        return f"/storage/v1/b/{self.name}/o"

    def _object(self, key: str) -> str:
        return f"{self._objects}/{urllib.parse.quote(key, safe='')}"

    def put(self, key: str, content: bytes | str = b"", metadata: Mapping[str, str] | None = None) -> str:
        """Returns the generation."""
        about = {"name": key, "metadata": dict(metadata or {}), "contentType": "application/x-test"}
        mark = uuid.uuid4().hex
        parts = [("application/json", json.dumps(about).encode()), ("application/x-test", in_bytes(content))]
        framed = b"".join(f"--{mark}\r\nContent-Type: {kind}\r\n\r\n".encode() + part + b"\r\n" for kind, part in parts)
        answer = self.server.ask(
            "POST",
            f"/upload{self._objects}?uploadType=multipart",
            framed + f"--{mark}--\r\n".encode(),
            f"multipart/related; boundary={mark}",
        )
        return json.loads(answer)["generation"]

    def get(self, key: str) -> bytes:
        return self.server.ask("GET", f"{self._object(key)}?alt=media")

    def head(self, key: str) -> dict:
        return json.loads(self.server.ask("GET", self._object(key)))

    def in_parts(self, key: str) -> bool:
        return "md5Hash" not in self.head(key)

    def metadata(self, key: str) -> dict[str, str]:
        return {name.lower(): value for name, value in self.head(key).get("metadata", {}).items()}

    def delete(self, key: str) -> None:
        self.server.ask("DELETE", self._object(key))

    def listed(self, prefix: str = "") -> dict[str, dict]:
        listed, page = {}, ""
        while page is not None:
            query = urllib.parse.urlencode({"prefix": prefix, "pageToken": page})
            answer = json.loads(self.server.ask("GET", f"{self._objects}?{query}"))
            for item in answer.get("items", []):
                about = {"Size": int(item["size"]), "ETag": item["generation"], "LastModified": item["updated"]}
                listed[item["name"]] = about
            page = answer.get("nextPageToken")
        return listed

    def _xml(self, method: str, key: str, query: str) -> list[dict[str, str]]:
        """What the XML API answers: the texts of each element that has any."""
        answer = self.server.ask(method, f"/{self.name}/{urllib.parse.quote(key)}?{query}")
        elements = ElementTree.fromstring(answer).iter() if answer else []
        return [{child.tag.partition("}")[2]: child.text or "" for child in element} for element in elements]

    def begin_upload(self, key: str) -> None:
        self._xml("POST", key, "uploads")

    def _uploads(self) -> list[dict[str, str]]:
        return [one for one in self._xml("GET", "", "uploads") if "UploadId" in one] if self.server.parts else []

    def uploads(self) -> list[str]:
        return [one["Key"] for one in self._uploads()]

    def abort_uploads(self) -> None:
        for one in self._uploads():
            self._xml("DELETE", one["Key"], f"uploadId={one['UploadId']}")


def start_versitygw(place: Path) -> tuple[Started, S3Server]:
    """Over a directory, as any POSIX file system: checks signatures, sums and conditions."""
    data, port = place / "data", free_port()
    data.mkdir()
    (place / "versions").mkdir()
    binary = versitygw_binary()
    sidecar = []
    try:
        os.setxattr(data, "user.probe", b"1")
    except OSError:
        (place / "sidecar").mkdir()
        sidecar = ["--sidecar", place / "sidecar"]
    command = [
        binary, "--port", f"127.0.0.1:{port}", "--region", REGION, "--keep-alive", "--quiet", "--health", "/health",
        "posix", *sidecar, data,
    ]  # fmt: skip
    secrets = {"ROOT_ACCESS_KEY": "testkey", "ROOT_SECRET_KEY": "a-secret-of-versitygw"}
    started = start(command, port, place, "/health", **secrets)
    return started, S3Server("versitygw", started.url, *secrets.values(), any_key=False, checks_sums=True)


def start_moto(place: Path) -> tuple[Started, S3Server]:
    """In memory: takes any key, checks conditions, neither signatures nor sums."""
    port = free_port()
    started = start([*moto_command(), "-H", "127.0.0.1", "-p", str(port)], port, place)
    return started, S3Server("moto", started.url, "moto-key", "a-secret-of-moto", any_key=True, checks_sums=False)


def start_azurite(place: Path) -> tuple[Started, AzureServer]:
    port = free_port()
    command = [
        azurite_binary(), "--blobHost", "127.0.0.1", "--blobPort", str(port), "--location", place, "--silent",
        "--skipApiVersionCheck", "--disableTelemetry",
    ]  # fmt: skip
    started = start(command, port, place)
    return started, AzureServer("azurite", f"{started.url}/{AZURE_ACCOUNT}")


def start_fake_gcs(place: Path) -> tuple[Started, GcsServer]:
    """In memory: checks generations where it writes, no credentials."""
    port = free_port()
    # A public host without a port is any port of it, also that of a proxy.
    command = [
        fake_gcs_binary(), "-scheme", "http", "-host", "127.0.0.1", "-port", str(port), "-backend", "memory",
        "-external-url", f"http://127.0.0.1:{port}", "-public-host", "127.0.0.1", "-log-level", "warn",
    ]  # fmt: skip
    started = start(command, port, place, "/_internal/healthcheck")
    return started, GcsServer("fake_gcs", started.url, parts=False)


def start_gcs(place: Path) -> tuple[Started, GcsServer]:
    """Our own, in memory: checks sums, generations and parts, no credentials."""
    port = free_port()
    started = start([sys.executable, Path(__file__).with_name("gcs_server.py"), str(port)], port, place, "/b/k")
    return started, GcsServer("gcs", started.url, parts=True)


STARTERS = {
    "versitygw": start_versitygw,
    "moto": start_moto,
    "azurite": start_azurite,
    "fake_gcs": start_fake_gcs,
    "gcs": start_gcs,
}


def server(name: str, place: Path) -> Iterator[S3Server | AzureServer | GcsServer]:
    try:
        started, server = STARTERS[name](place)
    except Missing as missing:
        if ENVIRONMENT.get("CI"):
            pytest.fail(str(missing))
        pytest.skip(str(missing))
    yield server
    started.end()


# Each process of the tests has its own: buckets are new for every test, and a server starts in a moment.


@pytest.fixture(scope="session")
def versitygw(tmp_path_factory):
    yield from server("versitygw", tmp_path_factory.mktemp("versitygw"))


@pytest.fixture(scope="session")
def moto(tmp_path_factory):
    yield from server("moto", tmp_path_factory.mktemp("moto"))


@pytest.fixture(scope="session")
def azurite(tmp_path_factory):
    yield from server("azurite", tmp_path_factory.mktemp("azurite"))


@pytest.fixture(scope="session")
def fake_gcs(tmp_path_factory):
    yield from server("fake_gcs", tmp_path_factory.mktemp("fake_gcs"))


@pytest.fixture(scope="session")
def gcs(tmp_path_factory):
    yield from server("gcs", tmp_path_factory.mktemp("gcs"))


@pytest.fixture(scope="session", params=["versitygw", "moto"])
def s3(request):
    """Each server of S3 in turn."""
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="session", params=["versitygw", "gcs"])
def parted(request):
    """Each server that takes uploads in parts as its service does: checks sums, conditions and parts, tells what is under way."""
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="session", params=list(STARTERS))
def store(request):
    """Each server in turn: what every one of them must do alike."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def proxied():
    """Puts a proxy in front of a server: `server, proxy = proxied(versitygw)`; with `tls` it speaks HTTPS."""
    proxies: list[Proxy] = []

    def proxied(server, **options) -> tuple:
        proxies.append(Proxy(server.url, server.kind_of, **options).start())
        return server.behind(proxies[-1]), proxies[-1]

    yield proxied
    for proxy in proxies:
        proxy.end()


def main(words: list[str]) -> int:
    if words[:1] != ["install"]:
        print(f"usage: {sys.argv[0]} install [NAME…]", file=sys.stderr)
        return 2
    wrong = 0
    for name in words[1:] or INSTALLERS:
        try:
            print(f"{name}: {INSTALLERS[name]()}")
        except Missing as missing:
            print(f"{name}: {missing}", file=sys.stderr)
            wrong = 1
    return wrong


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
