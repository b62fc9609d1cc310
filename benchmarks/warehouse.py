"""The models on a company of a year: dbt beside the same SQL without dbt, a day beside a rebuild, tests, growth.

`BENCH_LARGE_ROWS` (`--rows`) payments, a million by default; a tenth of them for growth. `BENCH_COMPANY` names a home
in which a company has landed already (a year, at most 50,000 payments; its key in the environment): without it one is
simulated and landed on embedded servers first. `BENCH_FOLDER` is where the large ones are made. dbt runs as
`warehouse refresh` runs it: same profile, same threads, same memory.
"""

from __future__ import annotations

import base64
import json
import os
import resource
import secrets
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import duckdb

from benchmarks import multiplied
from benchmarks.harness import Case, Outcome, Row, run_case
from warehouse.build_parts import build_in_parts
from warehouse.core.database import open_warehouse
from warehouse.core.keys import create_missing_keys
from warehouse.core.paths import Home
from warehouse.core.settings import CATALOG, Settings, load_settings
from warehouse.dbt import build_memory, run_dbt

ROWS = int(os.environ.get("BENCH_LARGE_ROWS", "1000000"))
REPEATS = int(os.environ.get("BENCH_REPEATS", "3"))
DAYS = 365
GROWTH = 10
LIMIT_MB = 4096
FEWEST_PAIRS = 3
"""With fewer there are figures, but no verdict."""
RUN = ("run",)
FULL = ("run", "--full-refresh")


@dataclass(frozen=True)
class Run:
    """One process: how long it took, what all its threads took, and its highest resident memory."""

    seconds: float
    processor: float
    peak_mb: float
    rows: int
    total: Decimal

    def __str__(self) -> str:
        return f"{self.seconds:.0f} s ({self.processor:.0f} s of processor)"


# -- cases: each runs in a process of its own --------------------------------------------------------------------


def dbt_case(home: Path, key: str, *arguments: str) -> Outcome:
    """One dbt command, started as the refresh starts it. Raises QualityFailure when a model or test fails."""
    settings = _settings(home, key)
    before = _processor(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    if arguments == RUN:
        build_in_parts(settings, *RUN)
    else:
        run_dbt(settings, arguments)
    seconds = time.perf_counter() - started
    return _outcome(settings, seconds, _processor(resource.RUSAGE_CHILDREN) - before)


def bare_case(home: Path, key: str) -> Outcome:
    """The statements that dbt compiled for its last full refresh, one after the other on one connection."""
    settings = _settings(home, key)
    statements = list(_statements(Home.of(settings).dbt_target))
    before = _processor(resource.RUSAGE_SELF)
    started = time.perf_counter()
    with open_warehouse(settings, memory_limit=build_memory(settings)) as connection:
        connection.execute("set preserve_insertion_order = false")  # as the profile
        for statement in statements:
            connection.execute(statement)
        connection.execute(f"checkpoint {CATALOG}")
    seconds = time.perf_counter() - started
    return _outcome(settings, seconds, _processor(resource.RUSAGE_SELF) - before)


def multiply_case(home: Path, key: str, copies: int) -> Outcome:
    """Not measured: in a process of its own for the memory's sake."""
    started = time.perf_counter()
    rows = multiplied.multiply(_settings(home, key), copies)
    return Outcome(time.perf_counter() - started, rows)


# -- what is reported --------------------------------------------------------------------------------------------


def measure() -> list[Row]:
    """Build, rebuild, let days land, test."""
    with _small_company() as small:
        with _company(small, ROWS // GROWTH) as tenth:
            run_case((dbt_case, (*tenth, "seed")))
            less = [_run(dbt_case, *tenth, *FULL) for _ in range(REPEATS)]
        with _company(small, ROWS) as company:
            return _measured(company, less)


def _measured(company: tuple[Path, str], less: Sequence[Run]) -> list[Row]:
    home, key = company
    shares = multiplied.hold_back(_settings(home, key), REPEATS)
    run_case((dbt_case, (home, key, "seed")))
    full, bare = [], []
    for _ in range(REPEATS):
        full.append(_run(dbt_case, home, key, *FULL))
        bare.append(_run(bare_case, home, key))
        if (bare[-1].rows, bare[-1].total) != (full[-1].rows, full[-1].total):
            raise RuntimeError("dbt and the bare connection built different payments")
    quiet, daily = _days(company)
    tests = [_run(dbt_case, home, key, "test") for _ in range(REPEATS)]
    day = f"one new day of {DAYS} ({statistics.median(shares):.2%} of the rows), net of a no-change run"
    peak = max(run.peak_mb for run in full)
    return [
        *_both_clocks(f"full build, {full[0].rows:,} payments", full, "the same SQL, bare", bare, 1.25),
        Row(
            f"memory of the full build, {full[0].rows:,} payments",
            f"{peak:.0f} MB",
            "4 GB",
            peak / LIMIT_MB,
            "≤ 1",
            peak <= LIMIT_MB,
            peak,
        ),
        *_both_clocks(day, daily, "full build, net too", full, 0.05, quiet),
        *_both_clocks("all tests, without expectations", tests, "full build", full, 0.5),
        *_growth(full, less),
    ]


def _days(company: tuple[Path, str]) -> tuple[list[Run], list[Run]]:
    """For each day that was held back: a run before it lands, when nothing has changed, and the run after."""
    home, key = company
    quiet, daily = [], []
    for number in range(REPEATS):
        quiet.append(_run(dbt_case, home, key, *RUN))
        multiplied.land_day(_settings(home, key), number)
        daily.append(_run(dbt_case, home, key, *RUN))
        if quiet[-1].rows >= daily[-1].rows:
            raise RuntimeError("the day brought no payment")
    return quiet, daily


def _both_clocks(
    what: str,
    ours: Sequence[Run],
    against: str,
    theirs: Sequence[Run],
    goal: float,
    less: Sequence[Run] | None = None,
) -> list[Row]:
    """The ratio of the wall clock, and of processor time, which load bends less; `less` is taken off both."""
    rows = []
    for clock in ("seconds", "processor"):
        mine, limit, off = ([float(getattr(run, clock)) for run in runs] for runs in (ours, theirs, less or ()))
        off = off or [0.0] * len(mine)
        pairs = [
            (one - taken) / (other - taken) if other > taken else 0.0
            for one, other, taken in zip(mine, limit, off, strict=True)
        ]
        ratio = statistics.median(pairs)
        net = f", taken off {statistics.median(off):.0f} s" if less else ""
        rows.append(
            Row(
                f"{what}: {'wall clock' if clock == 'seconds' else 'processor time'}",
                f"{statistics.median(mine):.0f} s",
                f"{against}: {statistics.median(limit):.0f} s{net}",
                ratio,
                f"≤ {goal}",
                _verdict(pairs, goal),
                max(run.peak_mb for run in ours),
            )
        )
    return rows


def _verdict(pairs: Sequence[float], goal: float) -> bool | None:
    """Whether the goal is met; None when this cannot tell: too few pairs, or one that noise has made impossible.

    A difference between two runs can come out below zero on a loaded machine. That is no result, let alone a good one.
    """
    if len(pairs) < FEWEST_PAIRS or min(pairs) <= 0:
        return None
    return statistics.median(pairs) <= goal


def _growth(full: Sequence[Run], less: Sequence[Run]) -> list[Row]:
    """What more payments cost. Reported only: the start of dbt weighs more on the small company, and flatters this."""
    large, small = _median(full), _median(less)
    peaks = max(run.peak_mb for run in full), max(run.peak_mb for run in less)
    grown = f"growth from {small.rows:,} to {large.rows:,} payments"
    per_payment = [1000 * run.processor / run.rows for run in (large, small)]
    return [
        Row(
            f"{grown}: processor time per payment",
            f"{per_payment[0]:.3f} ms",
            f"{per_payment[1]:.3f} ms",
            per_payment[0] / per_payment[1],
        ),
        Row(f"{grown}: memory", f"{peaks[0]:.0f} MB", f"{peaks[1]:.0f} MB", peaks[0] / peaks[1]),
    ]


def _median(runs: Sequence[Run]) -> Run:
    return sorted(runs, key=lambda run: run.seconds)[len(runs) // 2]


# -- companies ---------------------------------------------------------------------------------------------------


@contextmanager
def _small_company() -> Iterator[tuple[Path, str]]:
    """Home and key of a small company that has landed."""
    if named := os.environ.get("BENCH_COMPANY"):
        yield Path(named), os.environ["DBT_ENV_SECRET_WAREHOUSE_KEY"]
        return
    with tempfile.TemporaryDirectory() as folder:
        home, key = Path(folder), base64.b64encode(secrets.token_bytes(32)).decode()
        Path(folder).chmod(0o755)  # PostgreSQL runs as another user when this one is root
        multiplied.land_small(_settings(home, key))
        yield home, key


@contextmanager
def _company(small: tuple[Path, str], rows: int) -> Iterator[tuple[Path, str]]:
    """A company of about `rows` payments, in a home of its own that is removed afterwards."""
    home, key = small
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_FOLDER")) as folder:
        settings = _settings(Path(folder), key)
        create_missing_keys(settings)
        shutil.copytree(Home.of(_settings(home, key)).extensions, Home.of(settings).extensions)
        shutil.copy(Home.of(_settings(home, key)).warehouse, Home.of(settings).warehouse)
        with open_warehouse(settings, read_only=True) as connection:
            copies = max(1, round(rows / multiplied.payments(connection)))
        run_case((multiply_case, (Path(folder), key, copies)))
        yield Path(folder), key


def _settings(home: Path, key: str) -> Settings:
    return load_settings(
        warehouse_home=home,
        dbt_env_secret_warehouse_key=key,
        postgres_uri=None,
        mongodb_uri=None,
        kafka_bootstrap=None,
        sim_transactions=multiplied.MOST_PAYMENTS,
        sim_days=DAYS,
    )


def _run(function: Callable[..., Outcome], *arguments: object) -> Run:
    case: Case = (function, arguments)
    outcome, peak = run_case(case)
    run = Run(outcome.seconds, outcome.processor_seconds or 0.0, peak, outcome.rows, outcome.total or Decimal(0))
    sys.stderr.write(f"{function.__name__} {' '.join(str(word) for word in arguments[2:])}: {run}, {peak:.0f} MB\n")
    return run


def _outcome(settings: Settings, seconds: float, processor: float) -> Outcome:
    """With what stands in `fct_sales`: the payments, and the sum of their amounts."""
    try:
        with open_warehouse(settings, read_only=True) as connection:
            row = connection.execute(f"select count(*), sum(amount) from {CATALOG}.public.fct_sales").fetchone()
    except duckdb.CatalogException:  # seeds come before the models
        row = None
    rows, total = row or (0, None)
    return Outcome(seconds, rows, None if total is None else Decimal(total), processor)


def _statements(target: Path) -> Iterator[str]:
    """What dbt compiled, as plain statements, each after those that it reads."""
    nodes = json.loads((target / "manifest.json").read_text(encoding="utf-8"))["nodes"]
    results = json.loads((target / "run_results.json").read_text(encoding="utf-8"))["results"]
    for result in results:  # in the order in which they ended: what a model reads ended before it began
        node = nodes[result["unique_id"]]
        kind = "view" if node["config"]["materialized"] == "view" else "table"
        yield f"create or replace {kind} {node['relation_name']} as ({result['compiled_code']})"


def _processor(who: int) -> float:
    used = resource.getrusage(who)
    return used.ru_utime + used.ru_stime
