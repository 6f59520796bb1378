"""Copies a tree and tells how far it is, in words of your own: progress_callback.py SOURCE DEST"""

import sys

import sypy


def tell(snapshot):
    share = "…" if snapshot.percentage is None else f"{snapshot.percentage:.0f} %"
    print(f"{share:>5}  {snapshot.transfers:,} of {snapshot.total_transfers:,} files  {snapshot.speed_human}")


print(sypy.sync(sys.argv[1], sys.argv[2], progress_callback=tell, progress_frequency_ms=200))
