"""What a person sees: progress on standard error, results on standard output, errors with their three answers."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console
from rich.status import Status
from rich.table import Table
from rich.text import Text

from warehouse.core.errors import WarehouseError
from warehouse.core.progress import Progress

_LOG_WIDTH = 120  # where there is no terminal to ask

out = Console(highlight=False, width=None if sys.stdout.isatty() else _LOG_WIDTH)
err = Console(stderr=True, highlight=False, width=None if sys.stderr.isatty() else _LOG_WIDTH)


@contextmanager
def progress(quiet: bool = False) -> Iterator[Progress]:
    """A callback for library code: `step: text`. On a terminal one moving line, in a log a line each."""
    if quiet:
        yield lambda _: None
    elif err.is_terminal:
        with err.status("starting") as status:
            yield _moving_line(status)
    else:
        yield _log_lines()


def _moving_line(status: Status) -> Progress:
    started: dict[str, float] = {}

    def show(text: str) -> None:
        step, _, rest = text.partition(": ")
        if step not in started:
            started[step] = time.monotonic()
            err.print(Text(f"→ {step}", style="bold"))
        status.update(Text(f"{step}: {rest}"))

    return show


def _log_lines() -> Progress:
    """Counters such as `12/340 name` are shown now and then, everything else as it comes."""
    last_step, last_at = "", 0.0

    def show(text: str) -> None:
        nonlocal last_step, last_at
        step, _, rest = text.partition(": ")
        counter = rest.split(" ", 1)[0]
        is_counter = "/" in counter and counter.replace("/", "").isdigit()
        now = time.monotonic()
        if is_counter and step == last_step and now - last_at < 10:
            return
        last_step, last_at = step, now
        err.print(Text(f"  {text}"))

    return show


@contextmanager
def errors(as_json: bool = False) -> Iterator[None]:
    """Turn a WarehouseError into three lines (or JSON) and its exit code; anything else is a bug with a trace."""
    try:
        yield
    except WarehouseError as error:
        if as_json:
            sys.stdout.write(json.dumps(error.to_dict()) + "\n")
        else:
            err.print(Text("error  ", style="bold red"), Text(error.what), sep="")
            err.print(Text("kept   ", style="bold"), Text(error.kept), sep="")
            if error.todo:
                err.print(Text("next   ", style="bold"), Text(error.todo), sep="")
        raise typer.Exit(error.exit_code) from None
    except KeyboardInterrupt:
        err.print("interrupted; what was landed is kept, the next run goes on from there")
        raise typer.Exit(130) from None


def print_json(data: Any) -> None:
    """One JSON document on standard output."""
    sys.stdout.write(json.dumps(data, default=str, indent=1) + "\n")


def print_table(title: str | None, columns: tuple[str, ...], rows: list[tuple[Any, ...]]) -> None:
    """A table on standard output; numbers to the right."""
    table = Table(title=title, title_justify="left", title_style="bold")
    for index, column in enumerate(columns):
        numeric = bool(rows) and all(
            isinstance(row[index], int | float) or type(row[index]).__name__ == "Decimal" for row in rows
        )
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text("" if value is None else str(value)) for value in row))
    out.print(table)
