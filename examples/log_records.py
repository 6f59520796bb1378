"""Mirrors a tree with a log of what the engine says and of each change: log_records.py SOURCE DEST"""

import logging
import sys

import sypy

logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s", stream=sys.stdout)
log = logging.getLogger("mirror")


def note(event):
    if isinstance(event, sypy.SyncError):
        log.error("%s", event)
    elif event.action != "skip":
        log.info("%s %r (%s)", event.action, event.path, event.reason)


stats = sypy.sync(sys.argv[1], sys.argv[2], delete=True, on_event=note)
log.info("%s", stats)
