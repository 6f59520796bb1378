"""What the GCS server of the tests keeps, and what it refuses."""

import base64
import dataclasses
import datetime
import itertools
import re


class Refused(Exception):
    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status, self.reason, self.message = status, reason, message


NO_BUCKET = Refused(404, "NoSuchBucket", "The specified bucket does not exist.")
NO_OBJECT = Refused(404, "NoSuchKey", "The specified key does not exist.")
NO_UPLOAD = Refused(404, "NoSuchUpload", "The requested upload was not found.")
NOT_AS_ASKED = Refused(412, "conditionNotMet", "At least one of the pre-conditions you specified did not hold.")

generations = itertools.count(1_700_000_000_000_000)


def now() -> datetime.datetime:
    return datetime.datetime.now(datetime.timezone.utc)


def text_of(sum_: int) -> str:
    return base64.b64encode(sum_.to_bytes(4, "big")).decode()


def md5_text(sum_: bytes) -> str:
    return base64.b64encode(sum_).decode()


def hashes(crc32c: int, md5: str | None) -> str:
    return f"crc32c={text_of(crc32c)}" + (f",md5={md5}" if md5 else "")


@dataclasses.dataclass
class Object:
    name: str
    content: bytes
    metadata: dict[str, str]
    content_type: str
    crc32c: int
    # What is made of parts has none.
    md5: str | None
    generation: int = dataclasses.field(default_factory=lambda: next(generations))
    metageneration: int = 1
    updated: datetime.datetime = dataclasses.field(default_factory=now)

    def resource(self, bucket: str) -> dict:
        told = {
            "kind": "storage#object",
            "bucket": bucket,
            "name": self.name,
            "size": str(len(self.content)),
            "generation": str(self.generation),
            "metageneration": str(self.metageneration),
            "updated": self.updated.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z",
            "contentType": self.content_type,
            "crc32c": text_of(self.crc32c),
        }
        if self.md5:
            told["md5Hash"] = self.md5
        if self.metadata:
            told["metadata"] = self.metadata
        return told


@dataclasses.dataclass
class Part:
    content: bytes
    crc32c: int
    md5: bytes


@dataclasses.dataclass
class Upload:
    key: str
    metadata: dict[str, str]
    content_type: str
    parts: dict[int, Part] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Bucket:
    objects: dict[str, Object] = dataclasses.field(default_factory=dict)
    uploads: dict[str, Upload] = dataclasses.field(default_factory=dict)

    def object(self, key: str) -> Object:
        if key not in self.objects:
            raise NO_OBJECT
        return self.objects[key]


def told(resource: object, fields: str | None) -> object:
    """What `fields` asks for of a resource: `kind,items(name,size)`."""
    if not fields or not isinstance(resource, dict):
        return resource
    asked = re.findall(r"(\w+)(?:\(([^)]*)\))?", fields)
    if any(not re.fullmatch(r"\w+", name) for name, _ in asked):
        raise Refused(400, "invalidParameter", "Invalid field selection")
    chosen = {}
    for name, inner in asked:
        if name in resource:
            value = resource[name]
            chosen[name] = [told(one, inner) for one in value] if isinstance(value, list) else told(value, inner)
    return chosen


def must_match(there: Object | None, wanted: str | None) -> None:
    """A condition: `0` for what must not be there."""
    if wanted is not None and int(wanted) != (there.generation if there else 0):
        raise NOT_AS_ASKED
