"""The code in README.md, in the manual and in examples/ runs as it stands.

A page's blocks run in order, in one scratch folder that holds the trees that the pages speak of: ```python in one
namespace, the `$` lines of ```console in one shell each. Other blocks are only shown. `<!-- checked -->` before a block
says that what it shows is what comes out, give or take times: of the commands in a console block, of the code above
a text block.
"""

import contextlib
import io
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parent.parent
PAGES = [REPO / "README.md", *sorted(REPO.glob("docs/**/*.md"))]
EXAMPLES = sorted(REPO.glob("examples/*.py"))
# Pages whose blocks each start from nothing.
FRESH = {"docs/cli.md"}
FENCE = re.compile(
    r"^(?P<mark><!-- checked -->\n)?(?P<indent> *)```(?P<kind>\w+)[^\n]*\n(?P<code>.*?)^(?P=indent)```$",
    re.DOTALL | re.MULTILINE,
)
TREE = {
    "photos/2023/winter.jpg": "snow",
    "photos/2024/autumn.jpg": "leaves",
    "photos/2024/summer.jpg": "beach",
    "photos/notes.txt": "to be sorted",
    "project/.git/config": "[core]",
    "project/.gitignore": "build/\n*.log\n",
    "project/README.md": "# project",
    "project/build/out.bin": "0101",
    "project/src/main.py": "print('hello')",
    "project/src/test_main.py": "import main",
    "project/test.log": "passed",
}


def name(path):
    return path.relative_to(REPO).as_posix()


def blocks(text):
    """(line, kind, code, is checked) of each block."""
    for found in FENCE.finditer(text):
        line = text.count("\n", 0, found.start("code")) + 1
        yield line, found["kind"], textwrap.dedent(found["code"]), bool(found["mark"])


@pytest.fixture
def scratch(tmp_path, monkeypatch, sy_binary):
    """A folder with the trees in it, a home of its own, and both command lines on the path."""
    for path, text in TREE.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    (tmp_path / "empty").mkdir()
    home = tmp_path.parent / (tmp_path.name + "-home")
    home.mkdir()
    # The demonstration looks for sources there, and makes its folder in TMPDIR.
    for variable in ("HOME", "CARGO_HOME", "TMPDIR"):
        monkeypatch.setenv(variable, str(home))
    path = [str(Path(sys.executable).parent), str(sy_binary.parent), os.environ["PATH"]]
    monkeypatch.setenv("PATH", os.pathsep.join(path))
    return tmp_path


def run(command, folder):
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, f"exit code {done.returncode}\n{done.stdout}{done.stderr}"
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_the_code_on_a_page_runs(page, scratch):
    print(run([sys.executable, __file__, str(page)], scratch))


@pytest.mark.parametrize("example", EXAMPLES, ids=name)
def test_an_example_runs(example, scratch):
    assert run([sys.executable, str(example), "photos/", "backup/"], scratch)


def run_page(page):
    """Runs the blocks of a page in the working directory."""
    namespace, printed = {"__name__": "__main__"}, ""
    for number, (line, kind, code, checked) in enumerate(blocks(page.read_text())):
        if name(page) in FRESH:
            folder = Path.cwd().parent / f"{page.stem}-{number}"
            folder.mkdir()
            os.chdir(folder)
        if kind == "python":
            with contextlib.redirect_stdout(io.StringIO()) as out:
                exec(compile("\n" * (line - 1) + code, page, "exec"), namespace)
            printed = out.getvalue()
        elif kind == "console":
            printed = run_console(code, f"{page}:{line}")
            if checked:
                compare(printed, "".join(re.findall(r"^(?!\$ ).*\n", code, re.MULTILINE)), f"{page}:{line}")
        elif checked:
            compare(printed, code, f"{page}:{line}")


def run_console(code, where):
    """Runs the `$` lines in one shell, which stops at the first that fails; returns what they print."""
    lines = [line[2:] for line in code.splitlines() if line.startswith("$ ")]
    script = "".join(f"{line}\n[ $? = 0 ] || exit {number}\n" for number, line in enumerate(lines, 1))
    done = subprocess.run(["bash", "-c", script], stdout=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 0, f"{where}: line {done.returncode} failed: {code}\n{done.stdout}"
    return done.stdout


def compare(printed, shown, where):
    assert loose(printed) == loose(shown), f"{where}: printed\n{printed}\nshown\n{shown}"


def loose(text):
    """Without times and trailing spaces."""
    text = re.sub(r"\d+(\.\d+)? (ms|s|min)\b", "0 s", text)
    text = re.sub(r"\d{4}-\d\d-\d\dT\d\d-\d\d-\d\dZ", "DATE", text)
    return [line.rstrip() for line in text.strip().splitlines()]


if __name__ == "__main__":
    run_page(Path(sys.argv[1]))
