"""Credentials that a service gives: tokens for key files, roles of machines and containers, logins; and what when they run out.

The services are on loopback, under their own names: see `web`. The stores only list, and note who asked.
"""

import base64
import datetime
import hashlib
import json
import re

import google.oauth2.credentials
import google.oauth2.service_account
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

import gcs_server
import sypy
from tls import Authority
from web import Web

LOGIN = "login.microsoftonline.com"
GOOGLE = "oauth2.googleapis.com/token"
STS = r"sts\.amazonaws\.com/"
KEYS = ["a", "d/x", "d/e/y", "d/e/f/z"]


def after(**span) -> datetime.datetime:
    return datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(**span)


def zulu(**span) -> str:
    return after(**span).strftime("%Y-%m-%dT%H:%M:%SZ")


@pytest.fixture
def web(tmp_path):
    web = Web(Authority(tmp_path))
    yield web
    web.end()


@pytest.fixture
def client(web):
    """Goes through the proxy, and trusts whom it shows."""
    return sypy.CloudClientOptions(allow_http=True, proxy_url=web.url, ca_bundle=web.authority.bundle, max_retries=1)


@pytest.fixture
def near():
    """Of a store on loopback, whose services for credentials are so, too."""
    return sypy.CloudClientOptions(allow_http=True, max_retries=1)


@pytest.fixture(autouse=True)
def machine(monkeypatch, own_environment):
    """This is no machine of anybody's."""
    monkeypatch.setenv("HOME", str(own_environment))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


# S3.


class S3:
    """A bucket that notes ids and tokens, and refuses `refused`."""

    def __init__(self, web, place="here"):
        self.askers, self.refused = [], set()
        web.serve(f"{place}/b/?", self.list)

    def list(self, asked):
        signed = re.search(r"Credential=([^/]+)/", asked.headers.get("authorization", ""))
        who = (signed[1] if signed else None, asked.headers.get("x-amz-security-token"))
        self.askers.append(who)
        if who[0] in self.refused:
            return 400, "<Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>"
        return s3_page(asked.query["prefix"])


def below(prefix):
    """Keys and folders right below a prefix."""
    rest = [key[len(prefix) :] for key in KEYS if key.startswith(prefix)]
    return (
        [prefix + one for one in rest if "/" not in one],
        sorted({prefix + one.split("/")[0] + "/" for one in rest if "/" in one}),
    )


def s3_page(prefix):
    items, folders = below(prefix)
    rows = [
        f"<Contents><Key>{key}</Key><LastModified>2026-11-24T10:00:00.000Z</LastModified><ETag>e</ETag><Size>3</Size></Contents>"
        for key in items
    ]
    rows += [f"<CommonPrefixes><Prefix>{folder}</Prefix></CommonPrefixes>" for folder in folders]
    return f"<ListBucketResult><IsTruncated>false</IsTruncated>{''.join(rows)}</ListBucketResult>"


def everything(url, **options):
    """A run of several requests, one after the other."""
    entries = sypy.ls(url, recursive=True, max_depth=9, files_only=True, **options)
    assert sorted(entry.path for entry in entries) == sorted(KEYS)


class Numbered:
    """Credentials with numbers, so that it can be told which of them was used. `lasts` says how long each does."""

    def __init__(self, *lasts):
        self.lasts, self.given = lasts, 0

    def next(self) -> tuple[int, datetime.timedelta]:
        self.given += 1
        return self.given, datetime.timedelta(seconds=self.lasts[min(self.given, len(self.lasts)) - 1])


HOUR, MINUTE = 3600, 60


@pytest.fixture(params=["lasting", "ending"])
def numbered(request):
    """Some that last, or some of which the first is about to end. The second asks the source again, in mid-run."""
    return Numbered(HOUR) if request.param == "lasting" else Numbered(MINUTE, HOUR)


def check(numbered, askers, name=lambda n: (f"ASIA{n}", f"session {n}")):
    assert len(askers) >= 4
    if numbered.lasts == (HOUR,):
        assert set(askers) == {name(1)} and numbered.given == 1
    else:
        assert askers[0] in (name(1), name(2)) and askers[-1] == name(2) and numbered.given == 2


def json_key(number, lasts, **names) -> dict:
    return {
        "AccessKeyId": f"ASIA{number}",
        "SecretAccessKey": "hunter2",
        "Token": f"session {number}",
        "Expiration": zulu(seconds=lasts.total_seconds()),
        **names,
    }


def test_the_role_of_a_container(web, near, monkeypatch, tmp_path, numbered):
    s3 = S3(web)
    web.serve("here/role", lambda _: json_key(*numbered.next()))
    (tmp_path / "token").write_text("from a file\n")
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{web.url}/role")
    monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", str(tmp_path / "token"))
    everything("s3://b/", s3=sypy.S3Config(endpoint=web.url, client_options=near))
    check(numbered, s3.askers)
    assert {asked.headers["authorization"] for asked in web.of("here/role")} == {"from a file"}


def test_the_role_of_an_instance(web, near, monkeypatch, numbered):
    s3 = S3(web)
    web.serve("here/latest/meta-data/iam/security-credentials/", lambda asked: "role" if guarded(asked) else (401, ""))
    web.serve(
        "here/latest/meta-data/iam/security-credentials/role",
        lambda asked: {"Code": "Success", **json_key(*numbered.next())} if guarded(asked) else (401, ""),
    )
    web.serve("here/latest/api/token", lambda asked: "of this session" if asked.method == "PUT" else (405, ""))

    def guarded(asked):
        return asked.headers.get("x-aws-ec2-metadata-token") == "of this session"

    monkeypatch.delenv("AWS_EC2_METADATA_DISABLED")
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", web.url)
    everything("s3://b/", s3=sypy.S3Config(endpoint=web.url, client_options=near))
    check(numbered, s3.askers)


def test_a_role_for_a_token_of_somebody_else(web, client, monkeypatch, tmp_path, numbered):
    s3 = S3(web)

    def role(asked):
        assert asked.form["Action"] == "AssumeRoleWithWebIdentity"
        assert (asked.form["RoleArn"], asked.form["WebIdentityToken"]) == ("arn:aws:iam::1:role/r", "from kubernetes")
        number, lasts = numbered.next()
        return (
            f"<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials>"
            f"<AccessKeyId>ASIA{number}</AccessKeyId><SecretAccessKey>hunter2</SecretAccessKey>"
            f"<SessionToken>session {number}</SessionToken><Expiration>{zulu(seconds=lasts.total_seconds())}</Expiration>"
            f"</Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"
        )

    web.serve(STS, role)
    (tmp_path / "token").write_text("from kubernetes")
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::1:role/r")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
    everything("s3://b/", s3=sypy.S3Config(endpoint=web.url, client_options=client))
    check(numbered, s3.askers)


@pytest.mark.parametrize("how", ["profile", "default"])
def test_a_login_by_single_sign_on(web, client, monkeypatch, own_environment, numbered, how):
    s3, start = S3(web), "https://example.awsapps.com/start"

    def role(asked):
        assert asked.headers["x-amz-sso_bearer_token"] == "of the login"
        assert asked.query == {"role_name": "reader", "account_id": "123456789012"}
        number, lasts = numbered.next()
        answer = {"accessKeyId": f"ASIA{number}", "secretAccessKey": "hunter2", "sessionToken": f"session {number}"}
        return {"roleCredentials": answer | {"expiration": int((after() + lasts).timestamp() * 1000)}}

    web.serve("portal.sso.eu-west-1.amazonaws.com/federation/credentials", role)
    with open(own_environment / "aws_config_file", "w") as file:
        file.write(
            f"[{'profile work' if how == 'profile' else 'default'}]\nsso_start_url = {start}\nsso_region = eu-west-1\n"
            "sso_account_id = 123456789012\nsso_role_name = reader\nregion = eu-west-1\n"
        )
    cache = own_environment / ".aws" / "sso" / "cache" / f"{hashlib.sha1(start.encode()).hexdigest()}.json"
    cache.parent.mkdir(parents=True)
    cache.write_text(json.dumps({"startUrl": start, "accessToken": "of the login", "expiresAt": zulu(hours=1)}))
    who = {"profile": "work"} if how == "profile" else {}
    everything("s3://b/", s3=sypy.S3Config(endpoint=web.url, client_options=client, **who))
    check(numbered, s3.askers)


@pytest.mark.parametrize("again", [True, False])
def test_keys_of_a_role_that_are_refused_in_mid_run_are_asked_for_anew(web, near, monkeypatch, again):
    s3, numbered = S3(web), Numbered(HOUR)
    web.serve("here/role", lambda _: json_key(*numbered.next()))
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{web.url}/role")

    def end(asked):
        if asked.query["prefix"] == "d/":
            s3.refused |= {"ASIA1"} if again else {f"ASIA{n}" for n in range(99)}
        return s3.list(asked)

    web.serve("here/b/?", end)
    config = sypy.S3Config(endpoint=web.url, client_options=near)
    if again:
        everything("s3://b/", s3=config)
        assert s3.askers[0][0] == "ASIA1" and s3.askers[-1][0] == "ASIA2"
    else:
        with pytest.raises(sypy.SyncError, match="expired"):
            everything("s3://b/", s3=config)
        assert len(s3.askers) < 9


# Google.


@pytest.fixture
def gcs():
    server = gcs_server.Server().start()
    server.buckets["b"] = gcs_server.Bucket()
    for key in KEYS:
        server.buckets["b"].objects[key] = gcs_server.Object(key, b"123", {}, "text/plain", 0, None)
    yield server
    server.end()


@pytest.fixture(scope="session")
def private_key():
    return rsa.generate_private_key(65537, 2048)


def service_account(key, **fields) -> dict:
    text = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    return {
        "type": "service_account", "project_id": "p", "private_key_id": "k", "private_key": text,
        "client_email": "me@p.iam.gserviceaccount.com", "token_uri": f"https://{GOOGLE}", **fields,
    }  # fmt: skip


AUTHORIZED_USER = {
    "type": "authorized_user", "client_id": "id", "client_secret": "hunter2", "refresh_token": "hunter2 too",
}  # fmt: skip


def claims(assertion: str, key) -> dict:
    """What a signed token says, if the key has signed it."""
    signed, _, signature = assertion.rpartition(".")

    def plain(text):
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))

    key.public_key().verify(plain(signature), signed.encode(), padding.PKCS1v15(), hashes.SHA256())
    return json.loads(plain(signed.partition(".")[2]))


def token_for(numbered, key):
    """Answers as Google does to signed claims, and to refresh tokens."""

    def give(asked):
        fields = json.loads(asked.body) if asked.body[:1] == b"{" else asked.form
        if fields["grant_type"] == "refresh_token":
            assert (fields["client_secret"], fields["refresh_token"]) == ("hunter2", "hunter2 too")
        else:
            said = claims(fields["assertion"], key)
            assert said["iss"] == "me@p.iam.gserviceaccount.com" and said["exp"] > said["iat"]
            assert "googleapis.com/auth/" in said["scope"]
        number, lasts = numbered.next()
        return {"access_token": f"token{number}", "expires_in": int(lasts.total_seconds()), "token_type": "Bearer"}

    return give


def refuse_the_first(gcs):
    """From the second listing on: as if it had run out earlier than it said."""
    gcs.accepts = lambda token: token != "token1" or len(gcs.askers) < 2


@pytest.mark.parametrize("kind", ["service account", "user"])
@pytest.mark.parametrize("how", ["file", "text", "environment", "gcloud"])
def test_a_key_file_is_exchanged_for_tokens(web, client, gcs, private_key, monkeypatch, tmp_path, kind, how):
    numbered = Numbered(HOUR)
    web.serve(GOOGLE, token_for(numbered, private_key))
    text = json.dumps(service_account(private_key) if kind == "service account" else AUTHORIZED_USER)
    path = tmp_path / "application_default_credentials.json"
    path.write_text(text)
    fields = {"file": {"credentials_file": path}, "text": {"credentials_json": text}}.get(how, {})
    if how == "environment":
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))
    elif how == "gcloud":
        monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    config = sypy.GcsConfig(endpoint=gcs.url, client_options=client, **fields)
    everything("gs://b/", gcs=config)
    assert set(gcs.askers) == {"token1"} and numbered.given == 1
    gcs.askers.clear()
    numbered.given = 0
    refuse_the_first(gcs)
    everything("gs://b/", gcs=config)
    assert (gcs.askers[0], gcs.askers[-1], numbered.given) == ("token1", "token2", 2)


@pytest.mark.parametrize(
    "answer", [(400, {"error": "invalid_grant", "error_description": "gone"}), (503, ""), (200, "<html>")]
)
def test_a_key_that_gives_no_token_is_told_without_it(web, client, gcs, private_key, answer):
    web.serve(GOOGLE, answer)
    for key in (service_account(private_key), AUTHORIZED_USER):
        config = sypy.GcsConfig(credentials_json=json.dumps(key), endpoint=gcs.url, client_options=client)
        with pytest.raises(sypy.AuthenticationError, match="could not be had") as caught:
            sypy.ls("gs://b/", gcs=config)
        assert "hunter2" not in str(caught.value) and "PRIVATE" not in str(caught.value)
    assert gcs.askers == []


def test_the_identity_of_a_machine_at_google(web, near, gcs, monkeypatch):
    numbered = Numbered(HOUR)

    def give(asked):
        assert asked.headers["metadata-flavor"] == "Google"
        number, lasts = numbered.next()
        return {"access_token": f"token{number}", "expires_in": int(lasts.total_seconds()), "token_type": "Bearer"}

    web.serve("here/computeMetadata/v1/instance/service-accounts/default/token", give)
    monkeypatch.setenv("GCE_METADATA_HOST", web.host)
    refuse_the_first(gcs)
    everything("gs://b/", gcs=sypy.GcsConfig(endpoint=gcs.url, client_options=near))
    assert (gcs.askers[0], gcs.askers[-1], numbered.given) == ("token1", "token2", 2)


@pytest.mark.parametrize("kind", ["service account", "user"])
@pytest.mark.parametrize("ends", [False, True])
def test_credentials_of_google_auth(web, near, gcs, private_key, kind, ends):
    numbered = Numbered(MINUTE, HOUR) if ends else Numbered(HOUR)
    web.serve("here/token", token_for(numbered, private_key))
    if kind == "service account":
        key = service_account(private_key, token_uri=f"{web.url}/token")
        credentials = google.oauth2.service_account.Credentials.from_service_account_info(key)
    else:
        credentials = google.oauth2.credentials.Credentials(
            None, "hunter2 too", token_uri=f"{web.url}/token", client_id="id", client_secret="hunter2"
        )
    config = sypy.GcsConfig.from_google_auth(credentials, endpoint=gcs.url, client_options=near)
    everything("gs://b/", gcs=config)
    assert (set(gcs.askers), numbered.given) == ({"token1"}, 1)
    gcs.askers.clear()
    # The next run has the same token, unless that is about to end.
    everything("gs://b/", gcs=config)
    assert (set(gcs.askers), numbered.given) == (({"token2"}, 2) if ends else ({"token1"}, 1))


# Azure.


class Azure:
    """A container that notes tokens, and refuses `refused`."""

    def __init__(self, web):
        self.askers, self.refused = [], set()
        web.serve("here/account/c/?", self.list)

    def list(self, asked):
        self.askers.append(asked.headers.get("authorization", "").removeprefix("Bearer "))
        if self.askers[-1] in self.refused:
            return 401, "<Error><Code>InvalidAuthenticationInfo</Code><Message>expired</Message></Error>"
        items, folders = below(asked.query.get("prefix", ""))
        about = "<Properties><Content-Length>3</Content-Length><Etag>e</Etag><Last-Modified>Tue, 24 Nov 2026 10:00:00 GMT</Last-Modified></Properties>"
        rows = [f"<Blob><Name>{key}</Name>{about}</Blob>" for key in items]
        rows += [f"<BlobPrefix><Name>{folder}</Name></BlobPrefix>" for folder in folders]
        return f"<EnumerationResults><Blobs>{''.join(rows)}</Blobs><NextMarker/></EnumerationResults>"


def azure(web, client, **fields):
    return sypy.AzureConfig(account="account", endpoint=f"{web.url}/account", client_options=client, **fields)


def bearer(numbered):
    number, lasts = numbered.next()
    return {
        "access_token": f"token{number}",
        "expires_in": int(lasts.total_seconds()),
        "expires_on": str(int((after() + lasts).timestamp())),
    }


@pytest.mark.parametrize("how", ["config", "environment", "another authority"])
def test_a_service_principal(web, client, monkeypatch, numbered, how):
    store, authority = Azure(web), "here" if how == "another authority" else LOGIN

    def give(asked):
        assert asked.form["grant_type"] == "client_credentials"
        assert (asked.form["client_id"], asked.form["client_secret"]) == ("me", "hunter2")
        assert asked.form["scope"] == "https://storage.azure.com/.default"
        return bearer(numbered)

    web.serve(f"{authority}/tenant/oauth2/v2.0/token", give)
    fields = {"tenant_id": "tenant", "client_id": "me", "client_secret": "hunter2"}
    if how == "another authority":
        monkeypatch.setenv("AZURE_AUTHORITY_HOST", web.url)
    if how == "environment":
        for name in list(fields):
            monkeypatch.setenv(f"AZURE_{name.upper()}", fields.pop(name))
    everything("az://c/", azure=azure(web, client, **fields))
    check(numbered, store.askers, lambda n: f"token{n}")


@pytest.mark.parametrize("how", ["config", "environment"])
def test_a_workload_with_a_token_of_somebody_else(web, client, monkeypatch, tmp_path, numbered, how):
    store = Azure(web)
    (tmp_path / "token").write_text("from kubernetes")

    def give(asked):
        assert (asked.form["client_id"], asked.form["client_assertion"]) == ("me", "from kubernetes")
        return bearer(numbered)

    web.serve(f"{LOGIN}/tenant/oauth2/v2.0/token", give)
    monkeypatch.setenv("AZURE_FEDERATED_TOKEN_FILE", str(tmp_path / "token"))
    fields = {"tenant_id": "tenant", "client_id": "me"}
    if how == "environment":
        for name in list(fields):
            monkeypatch.setenv(f"AZURE_{name.upper()}", fields.pop(name))
    everything("az://c/", azure=azure(web, client, **fields))
    check(numbered, store.askers, lambda n: f"token{n}")


@pytest.mark.parametrize("client_id", [None, "me"])
def test_the_managed_identity_of_a_machine_at_azure(web, near, monkeypatch, numbered, client_id):
    store = Azure(web)

    def give(asked):
        assert asked.headers["metadata"] == "true" and asked.query["resource"] == "https://storage.azure.com/"
        assert asked.query.get("client_id") == client_id
        return bearer(numbered)

    web.serve("here/identity", give)
    monkeypatch.setenv("AZURE_IMDS_ENDPOINT", f"{web.url}/identity")
    everything("az://c/", azure=azure(web, near, client_id=client_id))
    check(numbered, store.askers, lambda n: f"token{n}")


def test_a_token_for_azure_that_is_refused_in_mid_run_is_asked_for_anew(web, near, monkeypatch):
    store, numbered = Azure(web), Numbered(HOUR)
    web.serve("here/identity", lambda _: bearer(numbered))
    monkeypatch.setenv("AZURE_IMDS_ENDPOINT", f"{web.url}/identity")

    def end(asked):
        if asked.query.get("prefix") == "d/":
            store.refused = {"token1"}
        return store.list(asked)

    web.serve("here/account/c/?", end)
    everything("az://c/", azure=azure(web, near))
    assert (store.askers[0], store.askers[-1], numbered.given) == ("token1", "token2", 2)


# All of them.


def test_who_gives_credentials_has_to_be_trusted(web, private_key, gcs):
    """A certificate that nobody known has issued: nothing is sent to it."""
    web.serve(GOOGLE, token_for(Numbered(HOUR), private_key))
    client = sypy.CloudClientOptions(allow_http=True, proxy_url=web.url)
    config = sypy.GcsConfig(credentials_json=json.dumps(AUTHORIZED_USER), endpoint=gcs.url, client_options=client)
    with pytest.raises(sypy.AuthenticationError, match=r"oauth2\.googleapis\.com.* is not trusted"):
        sypy.ls("gs://b/", gcs=config)
    assert web.asked == []
