"""Shows what mirroring a tree would do, and why, without doing it: dry_run.py SOURCE DEST"""

import sys

import sypy

stats = sypy.sync(sys.argv[1], sys.argv[2], delete=True, dry_run=True)
for change in stats.dry_run_details.all_changes():
    print(f"{change['action']!s:<8}{change['path']!a}  ({change['reason']})")
print(stats)
