"""Copies the Python files of a project, but not what git ignores: filters.py SOURCE DEST"""

import sys

import sypy

stats = sypy.sync(
    sys.argv[1],
    sys.argv[2],
    filter=["- tests/", "+ */", "+ *.py", "- *"],
    gitignore=True,
    exclude_vcs=True,
    max_size="1MB",
)
print(stats)
