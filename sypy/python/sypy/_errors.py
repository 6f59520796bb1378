"""The exceptions, each with the built-in one that a Python user expects as second base."""

from __future__ import annotations

import errno as codes
import io

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ._sypy import SyncStats


class SyncError(Exception):
    """A run that could not go on, or one item that failed; the base of all errors of this package.

    As an exception it ends a run; as a record it stands in `SyncStats.errors`. Two are equal when all they say is; they
    can be pickled. A subclass has an `errno` and a `filename` where the built-in exception it derives from has them.

        SyncError(Exception)                         path  error  action  retryable  hint
        ├ NotFoundError (FileNotFoundError)          ├ VerificationError
        ├ AlreadyExistsError (FileExistsError)       ├ SourceChangedError
        ├ PermissionDeniedError (PermissionError)    ├ ConflictError
        ├ AuthenticationError (PermissionError)      ├ DeleteLimitError
        │ └ HostKeyError                             ├ UnsupportedError (io.UnsupportedOperation)
        ├ NoSpaceError (OSError)                     ├ ConfigError (ValueError)
        ├ NetworkError (ConnectionError)             ├ LockedError
        └ NetworkTimeoutError (TimeoutError)         └ PartialSyncError

    >>> error = NotFoundError("No such file or directory", path="a/b", action="read")
    >>> print(error)
    cannot read 'a/b': No such file or directory
    >>> isinstance(error, FileNotFoundError), error.filename
    (True, 'a/b')
    """

    path: str | None
    """What it happened to, or `None`. Bytes that are not UTF-8 are surrogate escapes."""
    error: str
    """What happened, in words."""
    action: str
    """What was being done: a verb such as `"read"`, or nothing."""
    retryable: bool
    """Could the same work if tried again?"""
    hint: str | None
    """What may help, or `None`."""
    errno: int | None
    """The system's number for it, or `None`."""
    stats: SyncStats | None = None
    """What the run had done until this error ended it, or `None`."""

    _errno: int | None = None  # Of a subclass whose kind says it.

    def __init__(
        self,
        error: str = "",
        *,
        path: str | None = None,
        action: str = "",
        errno: int | None = None,
        hint: str | None = None,
        retryable: bool = False,
    ) -> None:
        if isinstance(self, OSError):
            super().__init__(self._errno if errno is None else errno, error, path)
        else:
            super().__init__(error)
            self.errno = errno
        self.path = path
        self.error = error
        self.action = action
        self.retryable = retryable
        self.hint = hint

    def __str__(self) -> str:
        text = self.error
        if self.path is not None:
            text = f"cannot {self.action} {self.path!r}: {text}" if self.action else f"{self.path!r}: {text}"
        return f"{text} ({self.hint})" if self.hint else text

    def __repr__(self) -> str:
        fields = [repr(self.error)]
        fields += [f"{name}={value!r}" for name, value in self._fields().items() if value]
        return f"{type(self).__name__}({', '.join(fields)})"

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return (self.error, self._fields(), self.stats) == (other.error, other._fields(), other.stats)

    def __hash__(self) -> int:
        return hash((type(self), self.error, *self._fields().values()))

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (type(self), self.error, self._fields()), self.__dict__

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as plain values; `"type"` is the name of the class."""
        return {"type": type(self).__name__, "error": self.error, **self._fields()}

    def _fields(self) -> dict[str, Any]:
        return {
            "path": self.path,
            "action": self.action,
            "errno": self.errno,
            "hint": self.hint,
            "retryable": self.retryable,
        }


def _restore(cls: type[SyncError], error: str, fields: dict[str, Any]) -> SyncError:
    return cls(error, **fields)


class NotFoundError(SyncError, FileNotFoundError):
    """Something that should be there is not."""

    _errno = codes.ENOENT


class AlreadyExistsError(SyncError, FileExistsError):
    """Something that should not be there is."""

    _errno = codes.EEXIST


class PermissionDeniedError(SyncError, PermissionError):
    """The system does not allow it."""

    _errno = codes.EACCES


class AuthenticationError(SyncError, PermissionError):
    """A storage does not accept the credentials, or has none to judge."""

    _errno = codes.EACCES


class HostKeyError(AuthenticationError):
    """An SSH host's key is not known, or is not the one that was known."""


class NoSpaceError(SyncError, OSError):
    """The destination is full, or the quota is used up."""

    _errno = codes.ENOSPC


class NetworkError(SyncError, ConnectionError):
    """A connection failed."""


class NetworkTimeoutError(SyncError, TimeoutError):
    """A time limit passed: of a connection, a request, or the run itself."""

    _errno = codes.ETIMEDOUT


class VerificationError(SyncError):
    """Content is not what it should be."""


class SourceChangedError(SyncError):
    """The source changed while it was read."""


class ConflictError(SyncError):
    """The destination changed since it was listed."""


class DeleteLimitError(SyncError):
    """A run would delete more than a limit allows, or all because the source is empty. Nothing was deleted."""


class UnsupportedError(SyncError, io.UnsupportedOperation):
    """A storage can't do what was asked, or sypy can't do it yet."""

    _errno = codes.EOPNOTSUPP


class ConfigError(SyncError, ValueError):
    """Options, configs or paths that can't be, or make no sense together."""


class LockedError(SyncError):
    """Another run holds the destination."""


class PartialSyncError(SyncError):
    """The run is over and some items failed; the rest is done.

    >>> from sypy import SyncStats
    >>> stats = SyncStats(files_created=2, errors=[NotFoundError("gone", path="a", action="read")])
    >>> try:
    ...     stats.raise_for_errors()
    ... except PartialSyncError as partial:
    ...     print(partial, partial.stats.files_created)
    1 item failed: cannot read 'a': gone 2
    """

    @property
    def errors(self) -> list[SyncError]:
        """The failed items."""
        return [] if self.stats is None else self.stats.errors

    @classmethod
    def _of(cls, stats: SyncStats) -> PartialSyncError:
        errors = stats.errors
        count = "1 item" if len(errors) == 1 else f"{len(errors)} items"
        more = "" if len(errors) == 1 else ", the first"
        partial = cls(f"{count} failed{more}: {errors[0]}", retryable=any(error.retryable for error in errors))
        partial.stats = stats
        return partial


# They are made known under the name of the package, as the native classes are; pickles hold that name.
for _class in [value for value in globals().values() if isinstance(value, type) and issubclass(value, SyncError)]:
    _class.__module__ = "sypy"
del _class
