"""What a run says it does, as sets of (key, action): from `on_event`, from `--json`, from `dry_run_details`."""

import json
import os

CHANGES = {"create", "update", "metadata", "delete"}
Change = tuple[str, str]


class Recorder:
    """Pass it as `on_event=`; `changes` is what was done or would be done. Skips, errors and the rest are left out."""

    def __init__(self) -> None:
        self.events: list = []

    def __call__(self, event) -> None:
        self.events.append(event)

    @property
    def changes(self) -> set[Change]:
        return {change for event in self.events if (change := _change(vars_of(event)))}


def vars_of(event) -> dict:
    return {name: getattr(event, name, None) for name in ("action", "key", "path", "kind", "reason")}


def _change(fields: dict) -> Change | None:
    action = _word(fields.get("action"))
    key = fields.get("key") if fields.get("key") is not None else fields.get("path")
    if action not in CHANGES or key is None or fields.get("error"):
        return None
    return os.fsdecode(key).rstrip("/"), action


def _word(action) -> str:
    return str(getattr(action, "value", action)).rpartition(".")[2].lower()


def changes_of_json(lines: str) -> set[Change]:
    """The changes in the NDJSON that `--json` printed; every line must be JSON."""
    events = [json.loads(line) for line in lines.splitlines() if line.strip()]
    return {change for event in events if (change := _change(event))}


def changes_of_details(details, dest) -> set[Change]:
    """The changes in `SyncStats.dry_run_details`, whose paths are below `dest`."""
    found = set()
    for change in [*details.file_changes, *details.directory_changes, *details.symlink_changes]:
        key = os.path.relpath(change.path, dest) if os.path.isabs(change.path) else change.path
        if _word(change.action) in CHANGES:
            found.add((key.rstrip("/"), _word(change.action)))
    return found
