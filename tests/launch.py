"""Runs a command with fewer means: `python launch.py '{"unprivileged": true, "nofile": 64, "umask": 63}' COMMAND …`

Root without its capabilities is held to file permissions like anyone else, but still reaches the interpreter and the
package wherever they are installed; that is why privileges are dropped this way and not by changing the user.
"""

import ctypes
import json
import os
import resource
import sys

PR_CAPBSET_DROP = 24


def drop_capabilities() -> None:
    """What this process executes from now on has no capability at all."""
    if os.geteuid() != 0:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    with open("/proc/sys/kernel/cap_last_cap", encoding="ascii") as file:
        last = int(file.read())
    for capability in range(last + 1):
        if libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "cannot drop capability", str(capability))


def main(limits: str, *command: str) -> None:
    means = json.loads(limits)
    if "umask" in means:
        os.umask(means["umask"])
    if "nofile" in means:
        resource.setrlimit(resource.RLIMIT_NOFILE, (means["nofile"], means["nofile"]))
    if "fsize" in means:
        resource.setrlimit(resource.RLIMIT_FSIZE, (means["fsize"], means["fsize"]))
    if means.get("unprivileged"):
        drop_capabilities()
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(*sys.argv[1:])
