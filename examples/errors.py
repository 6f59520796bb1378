"""Mirrors a tree, and says what went wrong, if anything: errors.py SOURCE DEST"""

import sys

import sypy

try:
    stats = sypy.sync(sys.argv[1], sys.argv[2], delete=True, max_delete=1000)
except sypy.PartialSyncError as partial:
    for failed in partial.errors:
        print("failed:", failed)
    sys.exit(f"{partial.stats}")
except sypy.DeleteLimitError as error:
    sys.exit(f"nothing was deleted: {error}")
except sypy.SyncError as error:
    sys.exit(f"{type(error).__name__}: {error}")
else:
    print(stats)
