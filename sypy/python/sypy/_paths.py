"""What names a location, apart from `str`, `bytes` and `SyncPath`, which the native module knows."""

from __future__ import annotations

import os

LOCAL = ("", "file", "local")


def location(path: object) -> str | bytes:
    """Return a location as text to parse, or as bytes if it is a local path whatever it looks like.

    >>> import pathlib
    >>> location(pathlib.Path("host:name"))
    b'host:name'
    """
    # The file system of fsspec's OpenFile knows its protocol; the path has lost it.
    file_system = getattr(path, "fs", None)
    if file_system is not None and isinstance(getattr(path, "path", None), str):
        return _joined(file_system.protocol, str(path.path), file_system)  # type: ignore[attr-defined]
    # universal_pathlib: a remote one is not os.PathLike, and a local one is a pathlib path.
    if hasattr(path, "storage_options") and isinstance(getattr(path, "protocol", None), str):
        return _joined(path.protocol, str(path.path), None)  # type: ignore[attr-defined]
    # cloudpathlib, whose __fspath__ downloads the file. pathlib has as_uri too, and no cloud_prefix.
    if hasattr(path, "cloud_prefix"):
        return str(path.as_uri())  # type: ignore[attr-defined]
    if isinstance(path, os.PathLike):
        return os.fsencode(path)
    raise TypeError(f"a location is text, bytes, a path object or a SyncPath, not {type(path).__name__}")


def _joined(protocol: str | tuple[str, ...], path: str, file_system: object) -> str | bytes:
    """Put a protocol before a path that may have it already."""
    if not isinstance(protocol, str):
        protocol = protocol[0]
    if protocol in LOCAL:
        strip = getattr(file_system, "_strip_protocol", None)
        return os.fsencode(strip(path) if strip else path.removeprefix("file://"))
    return path if "://" in path else f"{protocol}://{path}"
