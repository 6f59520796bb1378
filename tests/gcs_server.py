"""A server of Google Cloud Storage in memory, as far as sypy speaks to it; written from what Google documents of its two APIs.

It is stricter than other emulators: sums that are wrong, generations that are not there, parts that are too small or not what
was sent are refused, and only fields that were asked for are told. `python tests/gcs_server.py PORT` serves until it is killed;
in a test, `Server().start()` does, and says who asked.
"""

import base64
import hashlib
import json
import re
import sys
import threading
import urllib.parse
import uuid
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from xml.etree import ElementTree
from xml.sax.saxutils import escape

import crc32c as crc
from gcs_objects import (
    NO_BUCKET,
    NO_OBJECT,
    NO_UPLOAD,
    Bucket,
    Object,
    Part,
    Refused,
    Upload,
    hashes,
    md5_text,
    must_match,
    now,
    text_of,
    told,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

MIB = 1 << 20
SMALLEST_PART = 5 * MIB
# Larger objects are copied in two calls, as between far places.
COPIED_AT_ONCE = MIB


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 64 << 10
    server: "Server"

    def answer(self) -> None:
        path, _, query = self.path.partition("?")
        self.query = dict(urllib.parse.parse_qsl(query, keep_blank_values=True))
        self.body = self.rfile.read(int(self.headers.get("content-length", 0)))
        self.in_json = path.startswith(("/storage/v1/", "/upload/storage/v1/", "/token"))
        names = [urllib.parse.unquote(part) for part in path.split("/")]
        try:
            self.server.admit(self)
            with self.server.lock:
                if path.startswith("/upload/storage/v1/b/") and len(names) == 7:
                    self.put(names[5])
                elif path == "/storage/v1/b":
                    self.server.buckets[json.loads(self.body)["name"]] = Bucket()
                    self.tell({})
                elif self.in_json:
                    self.object_in_json(names[4], names[6:])
                else:
                    self.object_in_xml(names[1], urllib.parse.unquote(path.split("/", 2)[2] if len(names) > 2 else ""))
        except Refused as refused:
            self.refuse(refused)
        # Whoever is slow to read holds nobody else up.
        self.wfile.write(self.reply)

    # The names that the standard library calls.
    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer  # noqa: N815

    # Answers.

    def send(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"content_length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.reply = body

    def tell(self, resource: object) -> None:
        self.send(200, json.dumps(told(resource, self.query.get("fields"))).encode(), content_type="application/json")

    def tell_xml(self, kind: str, body: str, **headers: str) -> None:
        whole = f'<?xml version="1.0" encoding="UTF-8"?><{kind} xmlns="http://doc.s3.amazonaws.com/2006-03-01">{body}</{kind}>'
        self.send(200, whole.encode(), content_type="application/xml", **headers)

    def refuse(self, refused: Refused) -> None:
        if self.in_json:
            reason = "notFound" if refused.status == 404 else refused.reason
            error = {"code": refused.status, "message": refused.message, "errors": [{"reason": reason}]}
            self.send(refused.status, json.dumps({"error": error}).encode(), content_type="application/json")
        else:
            text = f"<Error><Code>{refused.reason}</Code><Message>{escape(refused.message)}</Message></Error>"
            self.send(refused.status, text.encode(), content_type="application/xml")

    def log_message(self, *_: object) -> None:
        pass

    # The JSON API.

    def bucket(self, name: str) -> Bucket:
        if name not in self.server.buckets:
            raise NO_BUCKET
        return self.server.buckets[name]

    def object_in_json(self, name: str, rest: list[str]) -> None:
        bucket = self.bucket(name)
        if not rest:
            self.list(name, bucket)
            return
        key = rest[0]
        if rest[1:2] == ["rewriteTo"]:
            self.rewrite(bucket, key, rest[3], rest[5])
            return
        there = bucket.object(key)
        must_match(there, self.query.get("ifGenerationMatch"))
        if self.command == "DELETE":
            del bucket.objects[key]
            self.send(204)
        elif self.command == "PATCH":
            change = json.loads(self.body)
            metadata = there.metadata | change.pop("metadata", {})
            there.metadata = {name: value for name, value in metadata.items() if value is not None}
            there.content_type = change.pop("contentType", there.content_type)
            if change:
                raise Refused(400, "invalid", f"this server does not change {sorted(change)}")
            there.metageneration, there.updated = there.metageneration + 1, now()
            self.tell(there.resource(name))
        elif self.query.get("alt") == "media":
            self.send(200, there.content, content_type=there.content_type)
        else:
            self.tell(there.resource(name))

    def list(self, name: str, bucket: Bucket) -> None:
        prefix, delimiter = self.query.get("prefix", ""), self.query.get("delimiter")
        after = base64.b64decode(self.query.get("pageToken", "")).decode()
        most = min(int(self.query.get("maxResults", 1000)), 1000)
        rows: dict[str, Object | None] = {}
        for key in sorted(bucket.objects, key=str.encode):
            if not key.startswith(prefix) or key.encode() < self.query.get("startOffset", "").encode():
                continue
            end = key.find(delimiter, len(prefix)) if delimiter else -1
            row = key if end < 0 else key[: end + 1]
            if row.encode() > after.encode() or not after:
                rows.setdefault(row, bucket.objects[key] if end < 0 else None)
            if len(rows) > most:
                break
        page = list(rows)[:most]
        answer: dict = {"kind": "storage#objects"}
        if items := [there.resource(name) for row in page if (there := rows[row])]:
            answer["items"] = items
        if prefixes := [row for row in page if rows[row] is None]:
            answer["prefixes"] = prefixes
        if len(rows) > most:
            answer["nextPageToken"] = base64.b64encode(page[-1].encode()).decode()
        self.tell(answer)

    def put(self, name: str) -> None:
        bucket, kind = self.bucket(name), self.query.get("uploadType")
        if kind != "multipart":
            raise Refused(400, "invalid", f"this server has no uploadType {kind!r}")
        about, content_type, content = self.framed()
        key = about["name"]
        if not key or len(key.encode()) > 1024:
            raise Refused(400, "invalid", "Invalid object name")
        must_match(bucket.objects.get(key), self.query.get("ifGenerationMatch"))
        sums = {"crc32c": text_of(crc.crc32c(content)), "md5Hash": md5_text(hashlib.md5(content).digest())}
        for field, right in sums.items():
            if about.get(field, right) != right:
                raise Refused(
                    400, "invalid", f'Provided {field} "{about[field]}" doesn\'t match calculated {field} "{right}".'
                )
        made = Object(
            key, content, about.get("metadata", {}), about.get("contentType", content_type),
            crc.crc32c(content), sums["md5Hash"],
        )  # fmt: skip
        bucket.objects[key] = made
        self.tell(made.resource(name))

    def framed(self) -> tuple[dict, str, bytes]:
        """Metadata, type and content of a body of `multipart/related`."""
        header = Message()
        header["content-type"] = self.headers["content-type"]
        mark = b"--" + str(header.get_param("boundary")).encode()
        try:
            _, about, content, end = re.split(rb"(?:^|\r\n)" + re.escape(mark), self.body)
            kind, _, content = content.partition(b"\r\n\r\n")
            assert end.startswith(b"--")
            return json.loads(about.partition(b"\r\n\r\n")[2]), kind.partition(b":")[2].strip().decode(), content
        except (ValueError, AssertionError) as error:
            raise Refused(400, "invalid", f"Malformed multipart body: {error}") from error

    def rewrite(self, bucket: Bucket, key: str, to: str, new_key: str) -> None:
        there, target = bucket.object(key), self.bucket(to)
        if self.query.get("sourceGeneration", str(there.generation)) != str(there.generation):
            raise NO_OBJECT
        must_match(target.objects.get(new_key), self.query.get("ifGenerationMatch"))
        if len(there.content) > COPIED_AT_ONCE and "rewriteToken" not in self.query:
            self.tell({"kind": "storage#rewriteResponse", "done": False, "rewriteToken": f"{there.generation}"})
            return
        if self.query.get("rewriteToken", str(there.generation)) != str(there.generation):
            raise Refused(400, "invalid", "Invalid rewrite token")
        about = json.loads(self.body) if self.body else {"metadata": there.metadata, "contentType": there.content_type}
        made = Object(
            new_key, there.content, about.get("metadata", {}), about.get("contentType", "application/octet-stream"),
            there.crc32c, there.md5,
        )  # fmt: skip
        target.objects[new_key] = made
        self.tell({"kind": "storage#rewriteResponse", "done": True, "resource": made.resource(to)})

    # The XML API.

    def object_in_xml(self, name: str, key: str) -> None:
        bucket, query = self.bucket(name), self.query
        upload = bucket.uploads.get(query.get("uploadId", ""))
        if "uploadId" in query and (upload is None or upload.key != key):
            raise NO_UPLOAD
        if upload is None:
            ways = {("GET", True): self.uploads, ("POST", True): self.begin, ("GET", False): self.get}
        else:
            ways = {
                ("PUT", False): self.part, ("GET", False): self.parts,
                ("POST", False): self.complete, ("DELETE", False): self.abort,
            }  # fmt: skip
        way = ways.get((self.command, "uploads" in query))
        if way is None:
            raise Refused(405, "MethodNotAllowed", "The specified method is not allowed against this resource.")
        way(bucket, upload or key)

    def get(self, bucket: Bucket, key: str) -> None:
        there = bucket.object(key)
        must_match(there, self.headers.get("x-goog-if-generation-match"))
        headers = {f"x-goog-meta-{name}": value for name, value in there.metadata.items()} | {
            "content-type": there.content_type,
            "last-modified": there.updated.strftime("%a, %d %b %Y %H:%M:%S GMT"),
            "x-goog-generation": str(there.generation),
            "x-goog-hash": hashes(there.crc32c, there.md5),
            "x-goog-stored-content-length": str(len(there.content)),
            "x-goog-stored-content-encoding": "identity",
        }
        size = len(there.content)
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("range", ""))
        if not asked:
            self.send(200, there.content, **headers)
            return
        start, end = int(asked[1]), min(int(asked[2] or size), size - 1)
        if start >= size:
            raise Refused(416, "InvalidRange", "The requested range cannot be satisfied.")
        self.send(206, there.content[start : end + 1], **headers, content_range=f"bytes {start}-{end}/{size}")

    def uploads(self, bucket: Bucket, _: str) -> None:
        rows = [
            f"<Upload><Key>{escape(one.key)}</Key><UploadId>{number}</UploadId></Upload>"
            for number, one in bucket.uploads.items()
        ]
        self.tell_xml("ListMultipartUploadsResult", f"<IsTruncated>false</IsTruncated>{''.join(rows)}")

    def begin(self, bucket: Bucket, key: str) -> None:
        own = {
            name.lower().removeprefix("x-goog-meta-"): value
            for name, value in self.headers.items()
            if name.lower().startswith("x-goog-meta-")
        }
        number = uuid.uuid4().hex
        bucket.uploads[number] = Upload(key, own, self.headers.get("content-type", "application/octet-stream"))
        self.tell_xml("InitiateMultipartUploadResult", f"<Key>{escape(key)}</Key><UploadId>{number}</UploadId>")

    def part(self, _: Bucket, upload: Upload) -> None:
        number = int(self.query["partNumber"])
        if not 1 <= number <= 10_000:
            raise Refused(400, "InvalidArgument", "Part number must be between 1 and 10000.")
        part = Part(self.body, crc.crc32c(self.body), hashlib.md5(self.body).digest())
        right = hashes(part.crc32c, md5_text(part.md5)).split(",")
        sent = ",".join(self.headers.get_all("x-goog-hash", []))
        if any(one.strip() not in right for one in sent.split(",") if one):
            raise Refused(
                400, "BadDigest", f"The sums you specified ({sent}) did not match what we received ({right})."
            )
        upload.parts[number] = part
        self.send(200, etag=f'"{part.md5.hex()}"', **{"x-goog-hash": ",".join(right)})

    def parts(self, _: Bucket, upload: Upload) -> None:
        after, most = int(self.query.get("part-number-marker", 0)), int(self.query.get("max-parts", 2))
        numbers = [number for number in sorted(upload.parts) if number > after]
        rows = "".join(
            f"<Part><PartNumber>{number}</PartNumber><ETag>&quot;{upload.parts[number].md5.hex()}&quot;</ETag>"
            f"<Size>{len(upload.parts[number].content)}</Size></Part>"
            for number in numbers[:most]
        )
        more = len(numbers) > most
        marker = f"<NextPartNumberMarker>{numbers[most - 1]}</NextPartNumberMarker>" if more else ""
        self.tell_xml("ListPartsResult", f"<IsTruncated>{str(more).lower()}</IsTruncated>{marker}{rows}")

    def complete(self, bucket: Bucket, upload: Upload) -> None:
        asked = [
            (int(part.findtext("PartNumber")), part.findtext("ETag").strip('"'))
            for part in ElementTree.fromstring(self.body)
        ]
        numbers = [number for number, _ in asked]
        if not numbers or numbers != sorted(set(numbers)):
            raise Refused(400, "InvalidPartOrder", "The list of parts was not in ascending order.")
        if any(number not in upload.parts or upload.parts[number].md5.hex() != tag for number, tag in asked):
            raise Refused(400, "InvalidPart", "One or more of the specified parts could not be found.")
        parts = [upload.parts[number] for number in numbers]
        if any(len(part.content) < SMALLEST_PART for part in parts[:-1]):
            raise Refused(
                400, "EntityTooSmall", "Your proposed upload is smaller than the minimum allowed object size."
            )
        whole = 0
        for part in parts:
            whole = crc.joined(whole, part.crc32c, len(part.content))
        made = Object(
            upload.key, b"".join(part.content for part in parts), upload.metadata, upload.content_type, whole, None
        )
        bucket.objects[upload.key] = made
        del bucket.uploads[self.query["uploadId"]]
        tag = hashlib.md5(b"".join(part.md5 for part in parts)).hexdigest()
        headers = {"x-goog-hash": hashes(whole, None), "x-goog-generation": str(made.generation)}
        text = f"<Key>{escape(upload.key)}</Key><ETag>&quot;{tag}-{len(parts)}&quot;</ETag>"
        self.tell_xml("CompleteMultipartUploadResult", text, **headers)

    def abort(self, bucket: Bucket, _: Upload) -> None:
        del bucket.uploads[self.query["uploadId"]]
        self.send(204)


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 512

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.buckets: dict[str, Bucket] = {}
        self.lock = threading.RLock()
        # Who asked, by the token; `None` for nobody. If set, `accepts` says whose requests are answered.
        self.askers: list[str | None] = []
        self.accepts: Callable[[str | None], bool] = lambda _: True

    def admit(self, request: Handler) -> None:
        token = request.headers.get("authorization", "").removeprefix("Bearer ") or None
        self.askers.append(token)
        if not self.accepts(token):
            raise Refused(401, "authError", "Invalid Credentials")

    def start(self) -> "Server":
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def end(self) -> None:
        self.shutdown()
        self.server_close()


if __name__ == "__main__":
    Server(int(sys.argv[1])).serve_forever()
