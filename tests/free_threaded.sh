#!/bin/sh
# Builds the wheel for a free-threaded Python, and runs the tests on it with the GIL off. Slow; not for CI.
#
#     tests/free_threaded.sh [PYTEST ARGUMENT…]
#
# FREE_THREADED_PYTHON names the interpreter, 3.14 or later; without it, the newest on PATH is taken. Environment, target and
# wheel are kept outside the clone.
set -eu

repo=$(cd "$(dirname "$0")/.." && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/sypy/free-threaded
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$cache/target}"
profile=${PROFILE:-ci}
# What make sets for the usual interpreter, and what would decide about the GIL.
unset PYO3_PYTHON VIRTUAL_ENV PYTHON_GIL PYTHONPATH

python=${FREE_THREADED_PYTHON:-$(command -v python3.15t || command -v python3.14t || true)}
if [ -z "$python" ] || ! "$python" -c 'import sys; sys.exit(sys._is_gil_enabled() or sys.version_info < (3, 14))' 2>/dev/null; then
    echo "no free-threaded Python 3.14 or later: put python3.14t on PATH, or name one in FREE_THREADED_PYTHON" >&2
    exit 1
fi

# An environment of another interpreter is of no use.
if ! grep -qxF "$python" "$cache/made-by" 2>/dev/null; then
    rm -rf "$cache/venv" "$cache/made-by"
    mkdir -p "$cache"
    "$python" -m venv "$cache/venv"
    echo "$python" >"$cache/made-by"
fi
bin=$cache/venv/bin
"$bin/python" -m pip install -q --upgrade pip
"$bin/python" -m pip install -q --group "$repo/sypy/pyproject.toml:test" 'maturin>=1.9,<2' rich

# No free-threaded Python before 3.15 has a stable ABI, so maturin leaves abi3 out, and says so.
rm -rf "$cache/dist"
cargo build -q --manifest-path "$repo/Cargo.toml" --profile "$profile" -p sy
(cd "$repo/sypy" && "$bin/maturin" build -q --profile "$profile" -i "$bin/python" --out "$cache/dist")
"$bin/python" -m pip install -q --no-deps --force-reinstall "$cache"/dist/*.whl

# Not from the clone, where an extension of another Python may lie. A module that needs the GIL turns it on and warns.
cd "$cache"
"$bin/python" -W error -c '
import sys, sypy
assert not sys._is_gil_enabled(), "sypy turned the GIL on"
print("Python", sys.version.split()[0], "without the GIL:", sypy._sypy.__file__)'

export SY_BIN="$CARGO_TARGET_DIR/$profile/sy"
cd "$repo/tests"
[ $# -gt 0 ] || set -- test_python_api.py test_door.py test_copy.py test_delete.py
exec "$bin/python" -W error::RuntimeWarning -m pytest -q -n "${JOBS:-2}" --timeout 300 -p no:cacheprovider "$@"
