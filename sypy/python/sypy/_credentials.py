"""Credentials from the sessions of other packages. None of them is needed, and none is imported before it is used."""

from __future__ import annotations

import datetime
from importlib import import_module

from ._errors import AuthenticationError
from ._sypy import GcsConfig, S3Config

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn


class _Function:
    """What a config calls. It knows who may, so it does not go into a pickle."""

    def __init__(self, credentials: Any) -> None:
        self._credentials = credentials

    def __reduce__(self) -> NoReturn:
        raise TypeError("credentials of a session can't be pickled")


class _Boto(_Function):
    def __call__(self) -> dict[str, Any]:
        credentials = self._credentials
        frozen = credentials.get_frozen_credentials()  # Refreshes those that have nearly run out.
        return {
            "access_key_id": frozen.access_key,
            "secret_access_key": frozen.secret_key,
            "session_token": frozen.token,
            # Of those that refresh themselves; there is no public name for it.
            "expires": getattr(credentials, "_expiry_time", None),
        }


def from_boto3(session: Any, /, **fields: Any) -> S3Config:
    """Make what `S3Config.from_boto3` describes.

    >>> class Frozen:
    ...     access_key, secret_key, token = "AKID", "secret", None
    >>> class Credentials:
    ...     def get_frozen_credentials(self):
    ...         return Frozen
    >>> from_boto3(Credentials(), region="eu-west-1").credentials()["access_key_id"]
    'AKID'
    """
    if hasattr(session, "get_frozen_credentials"):
        return S3Config(**{"credentials": _Boto(session), **fields})
    if not hasattr(session, "get_credentials"):
        raise TypeError(f"session must be a session or credentials of boto3 or botocore, not {type(session).__name__}")
    session = getattr(session, "_session", session)  # What a boto3 session is made on.
    credentials = session.get_credentials()
    if credentials is None:
        raise AuthenticationError("the session has no credentials", hint="S3Config(anonymous=True) needs none")
    own = {
        "credentials": _Boto(credentials),
        "region": session.get_config_variable("region"),
        "endpoint": _url(session),
    }
    return S3Config(**{**own, **fields})


def _url(session: Any) -> str | None:
    """Return the endpoint that a botocore session is configured to use for S3, or `None` for Amazon's."""
    if session.get_config_variable("ignore_configured_endpoint_urls"):
        return None
    try:
        module = import_module("botocore.configprovider")
    except ImportError:
        return None
    provider = module.ConfiguredEndpointProvider(
        full_config=session.full_config, scoped_config=session.get_scoped_config(), client_name="s3"
    )
    url: str | None = provider.provide()
    return url


class _Google(_Function):
    def __call__(self) -> dict[str, Any]:
        credentials = self._credentials
        if not credentials.valid or _ends_soon(credentials):
            credentials.refresh(_google_request())
        expiry = credentials.expiry
        if expiry is not None and expiry.tzinfo is None:
            expiry = expiry.replace(tzinfo=datetime.timezone.utc)  # google.auth has naive times in UTC.
        return {"token": credentials.token, "expires": expiry}


def _ends_soon(credentials: Any) -> bool:
    """Tell whether the engine would ask again at once."""
    expiry = credentials.expiry
    if expiry is None:
        return False
    now = datetime.datetime.now(datetime.timezone.utc)
    return bool(expiry.replace(tzinfo=expiry.tzinfo or datetime.timezone.utc) - now < datetime.timedelta(minutes=3))


def _google_request() -> Any:
    """Return what google.auth sends its requests by, of what is installed."""
    try:
        return import_module("google.auth.transport.requests").Request()
    except ImportError:
        pool = import_module("urllib3").PoolManager()
        return import_module("google.auth.transport.urllib3").Request(pool)


def from_google_auth(credentials: Any, /, **fields: Any) -> GcsConfig:
    """Make what `GcsConfig.from_google_auth` describes.

    >>> class Credentials:
    ...     token, expiry, valid = "t", None, True
    ...     def refresh(self, request): ...
    >>> from_google_auth(Credentials()).credentials()["token"]
    't'
    """
    if not all(hasattr(credentials, name) for name in ("token", "expiry", "valid", "refresh")):
        raise TypeError(f"credentials must be those of google.auth, not {type(credentials).__name__}")
    if getattr(credentials, "requires_scopes", False):
        scope = "https://www.googleapis.com/auth/devstorage.read_write"
        credentials = credentials.with_scopes([scope])
    return GcsConfig(**{"credentials": _Google(credentials), **fields})
