"""An SFTP server that lies, run as a subsystem: `python hostile_sftp.py HOW DIRECTORY`. Below the directory it serves what is there."""

import os
import stat
import struct
import sys

from lying import read, write

HOW, ROOT = sys.argv[1], os.fsencode(sys.argv[2])
EXTENSIONS = [b"posix-rename@openssh.com", b"lsetstat@openssh.com", b"hardlink@openssh.com"]
STATUS, HANDLE, DATA, NAME, ATTRS = 101, 102, 103, 104, 105
NAMES = {
    "dotdot": b"..\0", "up": b"../escaped", "absolute": b"/tmp/escaped", "slash": b"a/b", "empty": b"", "nul": b"a\0b",
}  # fmt: skip


def send(packet: bytes) -> None:
    write(struct.pack(">I", len(packet)) + packet)


def text(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def attrs(info: os.stat_result) -> bytes:
    return struct.pack(">IQIIIII", 0xF, info.st_size, info.st_uid, info.st_gid, info.st_mode, 1, int(info.st_mtime))


def listing(path: bytes) -> list[tuple[bytes, bytes]]:
    found = [(name, attrs(os.lstat(os.path.join(path, name)))) for name in os.listdir(path)]
    if HOW in NAMES:
        found.append((NAMES[HOW], attrs(os.lstat(__file__))))
    if HOW == "twice":
        found += found
    if HOW == "vague":
        found = [(name, struct.pack(">I", 0)) for name, _ in found]
    return found


def answer(kind: int, ident: bytes, body: bytes, handles: dict) -> None:
    if HOW == "wrong-id":
        ident = struct.pack(">I", 0xDEADBEEF)

    def status(code: int) -> None:
        send(bytes([STATUS]) + ident + struct.pack(">I", code) + text(b"\x1b[31mlies") + text(b""))

    length = struct.unpack(">I", body[:4])[0]
    path, rest = body[4 : 4 + length], body[4 + length :]
    try:
        if kind == 16:
            send(bytes([NAME]) + ident + struct.pack(">I", 1) + text(os.path.realpath(path)) + text(b"") + bytes(4))
        elif kind in (7, 17):
            info = (os.lstat if kind == 7 else os.stat)(path)
            body = attrs(info)
            if HOW == "no-kind" and not stat.S_ISDIR(info.st_mode):
                body = struct.pack(">IQ", 1, info.st_size)
            send(bytes([ATTRS]) + ident + body)
        elif kind == 11:
            handles[path] = listing(path)
            send(bytes([HANDLE]) + ident + text(path))
        elif kind == 12:
            entries = handles.pop(path, None)
            if not entries:
                return status(1)
            if HOW == "huge-count":
                return send(bytes([NAME]) + ident + struct.pack(">I", 0xFFFFFFF0))
            body = b"".join(text(name) + text(b"-rw-r--r-- 4294967295 x") + entry for name, entry in entries)
            send(bytes([NAME]) + ident + struct.pack(">I", len(entries)) + body)
        elif kind == 3:
            os.stat(path)
            send(bytes([HANDLE]) + ident + text(b"f" + path))
        elif kind == 5:
            at, want = struct.unpack(">QI", rest)
            with open(path[1:], "rb") as file:
                file.seek(at)
                data = file.read(want)
            if HOW == "giant":
                return send_raw_giant()
            if HOW == "too-much":
                data = bytes(want + 10)
            if HOW == "short":
                data = data[: max(1, want // 3)]
            if HOW == "empty-data":
                return send(bytes([DATA]) + ident + text(b""))
            if HOW == "wrong-kind":
                return send(bytes([ATTRS]) + ident + bytes(4))
            if HOW == "cut":
                sys.exit(1)
            if not data:
                return status(1)
            send(bytes([DATA]) + ident + text(data))
        elif kind == 8:
            send(bytes([ATTRS]) + ident + attrs(os.stat(path[1:])))
        elif kind == 4:
            status(0)
        elif kind == 19:
            send(bytes([NAME]) + ident + struct.pack(">I", 1) + text(os.readlink(path)) + text(b"") + bytes(4))
        else:
            status(8)
    except FileNotFoundError:
        status(2)
    except OSError:
        status(4)


def send_raw_giant() -> None:
    os.write(1, struct.pack(">I", 0x7FFFFFFF))
    while True:
        os.write(1, bytes(65536))


def main() -> None:
    if HOW == "text":
        os.write(1, b"Last login: today\n")
    while HOW == "silent":
        read(1)
    length = struct.unpack(">I", read(4))[0]
    read(length)
    version = 2 if HOW == "version" else 3
    send(bytes([2]) + struct.pack(">I", version) + b"".join(text(name) + text(b"1") for name in EXTENSIONS))
    handles: dict[bytes, list] = {}
    while True:
        length = struct.unpack(">I", read(4))[0]
        packet = read(length)
        answer(packet[0], packet[1:5], packet[5:], handles)


if __name__ == "__main__":
    main()
