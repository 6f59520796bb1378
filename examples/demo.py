"""Mirrors the Rust and Python sources that this machine has to a second place, and shows what that looks like.

`make demo` runs this. Everything happens in a new folder below the temporary directory, which the last lines name.
"""

import os
import shlex
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

import sypy

ONLY = ["- __pycache__/", "- site-packages/", "+ */", "+ *.py", "+ *.rs", "- *"]


def main():
    demo = Path(tempfile.mkdtemp(prefix="sypy-")) / "demo"
    source, mirror = demo / "source", demo / "mirror"

    title("Collect the Rust and Python files of this machine: sync() with filters")
    for name, folder in source_trees().items():
        print(f"{name:>8}: {sypy.sync(f'{folder}/', source / name, filter=ONLY)}")

    title("What would a mirror of them do? sync(source, mirror, dry_run=True)")
    show_plan(sypy.sync(f"{source}/", mirror, dry_run=True))

    title("Make it: sync(source, mirror, progress=True)")
    stats = sypy.sync(f"{source}/", mirror, progress=True)
    print(stats)
    print(f"{stats.transfer_rate / 1e6:,.0f} MB and {stats.files_created / stats.duration_secs:,.0f} files a second")

    title("Again: there is nothing to do")
    print(sypy.sync(f"{source}/", mirror))

    title("Change, add and remove a few files, and look again: sync(source, mirror, delete=True, dry_run=True)")
    change(source)
    show_plan(sypy.sync(f"{source}/", mirror, delete=True, dry_run=True))

    title("Mirror that: sync(source, mirror, delete=True, progress=True)")
    print(sypy.sync(f"{source}/", mirror, delete=True, progress=True))

    title("Are the two the same, byte by byte? sync(source, mirror, checksum=True, dry_run=True)")
    print(sypy.sync(f"{source}/", mirror, checksum=True, dry_run=True))

    suggest(source, mirror)


def source_trees():
    """Where this machine has source files, by a short name."""
    found = {"sypy": Path(__file__).resolve().parent.parent / "sy", "stdlib": Path(sysconfig.get_path("stdlib"))}
    crates = Path(os.environ.get("CARGO_HOME", Path.home() / ".cargo")) / "registry/src"
    try:
        rustc = subprocess.run(["rustc", "--print", "sysroot"], capture_output=True, text=True, check=True)
        found["rust"] = Path(rustc.stdout.strip()) / "lib/rustlib/src"
    except (OSError, subprocess.CalledProcessError):
        pass
    found["crates"] = crates
    return {name: folder for name, folder in found.items() if folder.is_dir()}


def show_plan(stats):
    """The summary of a dry run, and the first changes of each kind with their reasons."""
    for what, part in stats.dry_run_summary.items():
        if isinstance(part, dict):
            print(f"{what.replace('_', ' ')}: {part['count']:>6,} files {part['bytes']:>12,} bytes")
    for action in ("create", "update", "delete"):
        for change in stats.dry_run_details.files_by_action(action)[:3]:
            print(f"  {action}  {change.path!a}, {change.size:,} bytes ({change.reason})")


def change(source):
    """Appends to some files, removes others, adds one."""
    files = sorted(path for path in source.rglob("*") if path.is_file())
    for path in files[:: len(files) // 5]:
        path.chmod(0o644)  # Some crates come read-only.
        with path.open("a") as file:
            file.write("# changed\n")
    for path in files[7 :: len(files) // 20]:
        path.unlink()
    (source / "new.py").write_text("print('new')\n")


def suggest(source, mirror):
    """What to type next."""
    python, command = Path(sys.executable), Path(sys.executable).with_name("sypy")
    code = f'import sypy; print(sypy.sync("{source}/", "{mirror}", checksum=True))'
    title("What you can type next")
    for comment, *lines in [
        ("The plan of a run", f"{quoted(command)} -n --delete {quoted(source)}/ {quoted(mirror)}"),
        (
            "Lose a part of the mirror, and bring it back",
            f"rm -r {quoted(mirror / 'stdlib')}",
            f"{quoted(command)} --stats {quoted(source)}/ {quoted(mirror)}",
        ),
        ("The same from Python", f"{quoted(python)} -c {quoted(code)}"),
        ("All options", f"{quoted(command)} --help"),
        ("Clean up", f"rm -r {quoted(source.parent.parent)}"),
    ]:
        print(f"# {comment}", *lines, sep="\n")


def quoted(path):
    return shlex.quote(str(path))


def title(text):
    print(f"\n== {text}", flush=True)


if __name__ == "__main__":
    main()
