"""What a run should leave at the destination, said as plainly as Python can, without touching a file system.

Trees are snapshots as `trees.snapshot` makes them: key → {"kind", "mode", "mtime_ns", "content" or "target"}, the root
as ".". `expected` returns the destination after the run, or raises `Undecided` where the documents leave more than one
outcome open. A time of None means: any.
"""

import os
import re
from collections.abc import Mapping

Node = dict
Tree = dict[str, Node]


class Undecided(Exception):
    """No single right answer; draw another example."""


def expected(source: Tree, dest: Tree, options: Mapping, umask: int = 0o022) -> Tree:
    return _Run(source, dest, options, umask).result


def hidden(key: str, is_dir: bool, options: Mapping) -> bool:
    """Do the filters leave this one out? Its parents are not."""
    for pattern in options.get("include", ()):
        if matches(pattern, key, is_dir):
            return False
    return any(matches(pattern, key, is_dir) for pattern in options.get("exclude", ()))


def matches(pattern: str, key: str, is_dir: bool) -> bool:
    """rsync's patterns, as far as the tests use them: `*`, `?` (a byte), a leading and a trailing slash."""
    if pattern.endswith("/") and not is_dir:
        return False
    key, pattern = (os.fsencode(text).decode("latin-1") for text in (key, pattern))
    body = pattern.rstrip("/")
    regex = "".join({"*": "[^/]*", "?": "[^/]"}.get(char, re.escape(char)) for char in body.lstrip("/"))
    if body.startswith("/"):
        return re.fullmatch(regex, key, re.DOTALL) is not None
    if "/" in body:
        return re.fullmatch(f"(.*/)?{regex}", key, re.DOTALL) is not None
    return re.fullmatch(regex, key.rpartition("/")[2], re.DOTALL) is not None


def children(tree: Tree, key: str) -> list[str]:
    prefix = "" if key == "." else key + "/"
    return [k for k in tree if k != "." and k.startswith(prefix) and "/" not in k[len(prefix) :]]


def subtree(tree: Tree, key: str) -> list[str]:
    return [k for k in tree if k == key or k.startswith(key + "/")]


def is_dir(node: Node | None) -> bool:
    return node is not None and node["kind"] == "directory"


class _Run:
    def __init__(self, source: Tree, dest: Tree, options: Mapping, umask: int) -> None:
        self.source, self.dest, self.options, self.umask = source, dest, options, umask
        self.result: Tree = {}
        self._directory(".")

    def _new(self, node: Node, old: Node | None = None) -> Node:
        """A node as it arrives: with its own permissions, or the old one's, or those of the umask."""
        node = dict(node)
        if "mode" in node and not self.options.get("preserve_permissions", True):
            same_kind = old is not None and old["kind"] == node["kind"]
            node["mode"] = old["mode"] if same_kind else oct(int(node["mode"], 8) & 0o777 & ~self.umask)
        return node

    def _directory(self, key: str) -> None:
        """A directory of the source that is, or becomes, one at the destination."""
        self.result[key] = self._new(self.source[key], self.dest.get(key))
        there = children(self.dest, key) if is_dir(self.dest.get(key)) else []
        visible = [k for k in children(self.source, key) if not hidden(k, is_dir(self.source[k]), self.options)]
        for k in visible:
            self._entry(k)
        for k in there:
            if k not in visible:
                self._not_in_source(k)

    def _keep(self, key: str) -> None:
        for k in subtree(self.dest, key):
            self.result[k] = dict(self.dest[k])

    def _entry(self, key: str) -> None:
        node, old, options = self.source[key], self.dest.get(key), self.options
        left_alone = (
            (node["kind"] == "symlink" and options.get("links") == "skip")
            or (node["kind"] == "file" and not self._size_fits(node))
            or (old is None and options.get("existing"))
            or (old is not None and options.get("ignore_existing") and not (is_dir(node) and is_dir(old)))
        )
        if left_alone:
            self._keep(key)
        elif is_dir(node):
            if old is not None and not is_dir(old) and hidden(key, False, options):
                raise Undecided("a protected file where a directory must go")
            if old is not None and not is_dir(old) and options.get("existing"):
                raise Undecided("is a directory that is a file there existing?")
            self._directory(key)
        elif is_dir(old):
            self._in_place_of_a_directory(key)
        elif node["kind"] == "symlink" or old is None or old["kind"] != "file":
            if (
                options.get("update")
                and old is not None
                and old["kind"] != node["kind"]
                and old["mtime_ns"] > node["mtime_ns"]
            ):
                raise Undecided("is a newer thing of another kind newer?")
            self.result[key] = self._new(node, old)
        elif options.get("update") and old["mtime_ns"] > node["mtime_ns"]:
            self._keep(key)
        else:
            content = old["content"] if self._equal(node, old) else node["content"]
            self.result[key] = self._new(node, old) | {"content": content}

    def _in_place_of_a_directory(self, key: str) -> None:
        if len(subtree(self.dest, key)) == 1:
            if hidden(key, True, self.options):
                raise Undecided("a protected directory where a file must go")
            self.result[key] = self._new(self.source[key])
        elif not self.options.get("delete"):
            self._keep(key)
        elif any(hidden(k, is_dir(self.dest[k]), self.options) for k in subtree(self.dest, key)):
            raise Undecided("a directory with protected files where a file must go")
        else:
            self.result[key] = self._new(self.source[key])

    def _not_in_source(self, key: str) -> None:
        """Something the source does not have, or does not show."""
        node = self.dest[key]
        if not self.options.get("delete") or hidden(key, is_dir(node), self.options):
            self._keep(key)
        elif is_dir(node):
            for k in children(self.dest, key):
                self._not_in_source(k)
            if any(k.startswith(key + "/") for k in self.result):
                self.result[key] = dict(node) | {"mtime_ns": None}

    def _size_fits(self, node: Node) -> bool:
        size = _size(node)
        return self.options.get("min_size", 0) <= size <= self.options.get("max_size", size)

    def _equal(self, node: Node, old: Node) -> bool:
        options = self.options
        if options.get("ignore_times"):
            return False
        if options.get("checksum"):
            return node["content"] == old["content"]
        if _size(node) != _size(old):
            return False
        return bool(options.get("size_only")) or node["mtime_ns"] == old["mtime_ns"]


def _size(node: Node) -> int:
    return node["content"][0] if isinstance(node["content"], tuple) else len(node["content"])


def follow(source: Tree) -> Tree:
    """The source as it looks when links are followed; a link that leads nowhere is undecided."""
    result = dict(source)
    for key, node in source.items():
        if node["kind"] == "symlink":
            target = os.path.normpath(os.path.join(os.path.dirname(key), node["target"]))
            if source.get(target, {}).get("kind") != "file":
                raise Undecided("a link that does not lead to a file")
            result[key] = source[target]
    return result
