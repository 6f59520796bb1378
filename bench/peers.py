"""Install the peers that can be had: sy-python into a venv of its own, rsync where root may."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from places import HOME, ROOT
from tools import SY_PYTHON, SY_PYTHON_VENV, find


def install(given_sy: str | None) -> None:
    """Install what is missing, then say what is here and what is not."""
    install_sy_python()
    if not shutil.which("rsync") and ROOT and shutil.which("apt-get"):
        subprocess.run(["apt-get", "install", "--yes", "--quiet", "rsync"], check=True)
    list_tools(given_sy)


def install_sy_python() -> None:
    HOME.mkdir(parents=True, exist_ok=True)
    python = SY_PYTHON_VENV / "bin/python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", SY_PYTHON_VENV], check=True)
    pip: list[str | Path] = [
        python,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
    ]
    subprocess.run([*pip, SY_PYTHON], check=True)


def list_tools(given_sy: str | None) -> None:
    have, lack = find(given_sy)
    for tool in have.values():
        print(f"{tool.name:10} {tool.version}")
    for name, why in lack.items():
        print(f"{name:10} missing: {why}")
