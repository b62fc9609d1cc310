"""How a benchmark measures: every case in a process of its own, cases interleaved, medians, checked before reported.

Machines are shared and noisy, so seconds are shown and only ratios within one run are goals.
"""

from __future__ import annotations

import multiprocessing
import os
import platform
import resource
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

RESULTS = Path(__file__).parent / "RESULTS.md"
PACKAGES = ("duckdb", "dlt", "pyarrow", "psycopg", "pymongo", "confluent-kafka")


@dataclass(frozen=True)
class Outcome:
    """What a case did, measured inside its process.

    Attributes:
        rows, total: what arrived: number of rows, and the sum of their amounts (None: the case cannot say).
        processor_seconds: of all threads, user and system: what a loaded machine changes least (None: not measured).
    """

    seconds: float
    rows: int
    total: Decimal | None = None
    processor_seconds: float | None = None


class Stopwatch:
    """Times a case from here on, by the wall clock and by processor time: of this process and of programs it ran."""

    def __init__(self) -> None:
        self._processor = _processor_seconds()
        self._started = time.perf_counter()
        self._taken: tuple[float, float] | None = None

    def stop(self) -> None:
        """What follows, such as counting what arrived, is not measured."""
        self._taken = time.perf_counter() - self._started, _processor_seconds() - self._processor

    def outcome(self, rows: int, total: Decimal | None = None) -> Outcome:
        """What was measured up to :meth:`stop`, or up to now."""
        if self._taken is None:
            self.stop()
        seconds, processor = self._taken or (0.0, 0.0)
        return Outcome(seconds, rows, total, processor)


@dataclass(frozen=True)
class Summary:
    """A case over its repeats: median seconds, the highest peak of resident memory in MB, each repeat's seconds.

    `processor` is the median of processor seconds, None where a case does not measure them.
    """

    seconds: float
    peak_mb: float
    rows: int
    repeats: tuple[float, ...] = ()
    processor: float | None = None

    @property
    def rate(self) -> float:
        """Rows a second."""
        return self.rows / self.seconds

    def told(self, unit: str = "rows") -> str:
        """For people: seconds by both clocks, and the rate."""
        processor = "" if self.processor is None else f" ({self.processor:.2f} s of processor)"
        return f"{self.seconds:.2f} s{processor}, {self.rate / 1000:,.0f}k {unit}/s"


@dataclass(frozen=True)
class Row:
    """One line of RESULTS.md. `ratio` is against `against`; `met` is None where there is no goal."""

    what: str
    measured: str
    against: str = ""
    ratio: float | None = None
    goal: str = ""
    met: bool | None = None
    peak_mb: float | None = None


class Unequal(Exception):
    """A case did not do the work it claims: its rows or their sum are wrong."""


Case = tuple[Callable[..., Outcome], tuple[object, ...]]


def run_case(case: Case) -> tuple[Outcome, float]:
    """Run one function of a module in a new process; returns its outcome and that process's peak memory in MB.

    Raises RuntimeError when it failed: its traceback is on standard error.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_measured, args=(sender, *case))
    process.start()
    sender.close()
    try:
        outcome, peak = receiver.recv()
    except EOFError:
        raise RuntimeError(f"the case {case[0].__name__} failed") from None
    finally:
        process.join()
    return outcome, peak


def interleaved(cases: Mapping[str, Case], expected: tuple[int, Decimal], repeats: int) -> dict[str, Summary]:
    """Run every case once, then every case again, … so that a slow minute of the machine touches all of them.

    Raises Unequal when a case's rows or sum are not `expected`.
    """
    runs: dict[str, list[tuple[Outcome, float]]] = {name: [] for name in cases}
    for _ in range(repeats):
        for name, case in cases.items():
            outcome, peak = run_case(case)
            check(name, outcome, expected)
            runs[name].append((outcome, peak))
    return {name: summary(done) for name, done in runs.items()}


def check(name: str, outcome: Outcome, expected: tuple[int, Decimal]) -> None:
    """Raise Unequal when the outcome is not the expected rows and sum."""
    rows, total = expected
    if outcome.rows != rows or (outcome.total is not None and outcome.total != total):
        raise Unequal(f"{name}: {outcome.rows} rows, sum {outcome.total}; expected {rows}, {total}")


def summary(runs: Sequence[tuple[Outcome, float]]) -> Summary:
    """Median and peak of one case's repeats."""
    processor = [outcome.processor_seconds for outcome, _ in runs if outcome.processor_seconds is not None]
    return Summary(
        statistics.median(outcome.seconds for outcome, _ in runs),
        max(peak for _, peak in runs),
        runs[0][0].rows,
        tuple(outcome.seconds for outcome, _ in runs),
        statistics.median(processor) if processor else None,
    )


def paired(ours: Summary, limit: Summary) -> float:
    """Our rate as a share of the limit's: the median over the repeats, each against the limit's run next to it."""
    if len(ours.repeats) != len(limit.repeats):
        return ours.rate / limit.rate
    shares = (theirs / mine for mine, theirs in zip(ours.repeats, limit.repeats, strict=True))
    return statistics.median(shares) * ours.rows / limit.rows


def write_results(sections: Mapping[str, Sequence[Row]], path: Path = RESULTS) -> None:
    """Write what this run measured into RESULTS.md, and keep the sections that it did not measure."""
    lines = [
        "# Measured",
        "",
        "A ratio is the median over pairs of neighbouring runs; seconds are of a shared machine.",
        "Processor seconds are of the measuring process; what the source's server takes is only in the wall clock.",
        "A path ends where its name says: *sealed lake* is extraction (read, treated, written as encrypted Parquet,",
        "sealed), *raw* is all of landing (the load into the warehouse and the manifest too). A ratio is of that path.",
        "Written by `python -m benchmarks`, each section by the last run that measured it.",
    ]
    for title, body in (_written_sections(path) | {title: _section(rows) for title, rows in sections.items()}).items():
        lines += ["", f"## {title}", "", body]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _section(rows: Sequence[Row]) -> str:
    lines = [f"{datetime.now(UTC):%Y-%m-%d}. {machine()}.", ""]
    lines += ["| what | measured | against | ratio | goal | | peak MB |", "| --- | --- | --- | --- | --- | --- | --- |"]
    return "\n".join(lines + [_line(row) for row in rows])


def _written_sections(path: Path) -> dict[str, str]:
    """Title → text of the sections that an earlier run left."""
    if not path.exists():
        return {}
    parts = path.read_text(encoding="utf-8").split("\n## ")[1:]
    return {title: body.strip() for title, _, body in (part.partition("\n") for part in parts)}


def machine() -> str:
    """Processors, memory and versions, in a line; no names of machines or paths."""
    memory = psutil.virtual_memory().total / 2**30
    versions = ", ".join(f"{name} {found}" for name in PACKAGES if (found := _version(name)))
    load = "load {:.1f}, {:.1f}, {:.1f} (1, 5, 15 minutes) at the end".format(*os.getloadavg())
    return (
        f"{os.cpu_count()} processors ({platform.machine()}), {memory:.0f} GB, "
        f"Python {platform.python_version()}, {versions}; {load}"
    )


def peak_of_command(command: Sequence[str], environment: Mapping[str, str]) -> None:
    """Run a peer's program. Its memory counts as the case's: :func:`run_case` looks at children too.

    Raises CalledProcessError when it fails; its output is shown only then, without the environment.
    """
    subprocess.run(  # noqa: S603 - a program that the person who measures has named
        list(command), env={**os.environ, **environment}, check=True, stdout=subprocess.DEVNULL
    )


def _measured(sender: object, function: Callable[..., Outcome], arguments: tuple[object, ...]) -> None:
    outcome = function(*arguments)
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    peak = max(resource.getrusage(kind).ru_maxrss for kind in kinds) / 1024
    sender.send((outcome, peak))  # type: ignore[attr-defined]  # a connection: multiprocessing names no class for it


def _processor_seconds() -> float:
    used = [resource.getrusage(kind) for kind in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def _line(row: Row) -> str:
    ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
    met = {None: "", True: "met", False: "**not met**"}[row.met]
    peak = "" if row.peak_mb is None else f"{row.peak_mb:.0f}"
    return f"| {row.what} | {row.measured} | {row.against} | {ratio} | {row.goal} | {met} | {peak} |"


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
