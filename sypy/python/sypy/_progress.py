"""The bar of `progress=True`: rich in a terminal, a widget in a notebook, nothing elsewhere."""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ._sypy import ProgressSnapshot


def bar() -> _TerminalBar | _NotebookBar | None:
    """Return a bar for where this process shows its output, or `None` if nobody would see one."""
    if _in_notebook():
        return _NotebookBar() if _has_widgets() else None
    return _TerminalBar() if sys.stderr is not None and sys.stderr.isatty() else None


def _in_notebook() -> bool:
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return type(shell).__name__ == "ZMQInteractiveShell"


def _has_widgets() -> bool:
    from importlib.util import find_spec

    return find_spec("tqdm") is not None and find_spec("ipywidgets") is not None


def printable(name: str) -> str:
    r"""Return a name without anything that a terminal would obey.

    >>> printable("a\x1b[31m\n\udcff")
    'a\\x1b[31m\\n\\udcff'
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)


class _TerminalBar:
    """One line on standard error: bar, bytes, speed, time left, files, current file."""

    def __init__(self) -> None:
        self.progress: Any = None
        self.task: Any = None

    def __call__(self, snapshot: ProgressSnapshot) -> None:
        if self.progress is None:
            # Here and not earlier: by now the engine is at work.
            self._start()
        total = snapshot.total_bytes if snapshot.totals_are_final else None
        eta = snapshot.eta_secs
        name = printable(snapshot.current_file or "")
        self.progress.update(
            self.task,
            total=total,
            completed=snapshot.bytes,
            size=f"{snapshot.bytes_human} of {snapshot.total_bytes_human}",
            speed=snapshot.speed_human,
            eta="" if eta is None else f"{_clock(eta)} left",
            files=f"{snapshot.transfers:,} of {snapshot.total_transfers:,} files".replace(",", " "),
            name=name if len(name) <= 40 else "…" + name[-39:],
            refresh=True,
        )

    def _start(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn
        from rich.table import Column

        fields = ("size", "speed", "eta", "files", "name")
        # In a narrow terminal the name gives way, then the bar; the figures stay whole.
        columns = [
            TextColumn(
                f"{{task.fields[{field}]}}",
                markup=False,
                table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1 if field == "name" else None),
            )
            for field in fields
        ]
        bar = BarColumn(12, table_column=Column(no_wrap=True))
        self.progress = Progress(bar, *columns, console=Console(stderr=True), auto_refresh=False, expand=True)
        self.task = self.progress.add_task("", total=None, **dict.fromkeys(fields, ""))
        self.progress.start()

    def close(self) -> None:
        if self.progress is not None:
            self.progress.stop()


class _NotebookBar:
    """tqdm's widget, which escapes what it shows."""

    def __init__(self) -> None:
        from tqdm.notebook import tqdm

        self.bar = tqdm(total=None, unit="B", unit_scale=True, unit_divisor=1000)

    def __call__(self, snapshot: ProgressSnapshot) -> None:
        self.bar.total = snapshot.total_bytes if snapshot.totals_are_final else None
        self.bar.n = snapshot.bytes
        files = f"{snapshot.transfers} of {snapshot.total_transfers} files"
        self.bar.set_postfix_str(f"{files} {printable(snapshot.current_file or '')}", refresh=False)
        self.bar.refresh()

    def close(self) -> None:
        self.bar.close()


def _clock(seconds: float) -> str:
    """Return a time as a clock shows it.

    >>> _clock(75), _clock(7325)
    ('1:15', '2:02:05')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
