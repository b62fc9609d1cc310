"""Longer answers: the end of a refresh, the status page, the doctor's findings."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rich.text import Text

from ingestion.reconcile import Reconciliation
from warehouse import servers
from warehouse.cli import console
from warehouse.core.paths import Home
from warehouse.core.settings import Settings
from warehouse.examples import run_examples
from warehouse.metrics import Metrics
from warehouse.report import RunReport
from warehouse.status import Finding, Status

SHOWN_ROWS = 10
"""Of an example's answer; a company has thousands, the reference data set a handful."""

_SEVERITY_STYLE = {"error": "bold red", "warning": "yellow", "ok": "green"}


def show_refresh(settings: Settings, report: RunReport) -> None:
    """What moved, how long each step took, the three example answers, where everything lies."""
    _show_moved(report)
    steps = [(step.step, step.status, f"{step.seconds:.1f}", _remark(step.detail)) for step in report.steps]
    console.print_table(f"refresh {report.run_id}: {report.seconds:.0f} s", ("step", "status", "seconds", ""), steps)
    for answer in run_examples(settings, servers.resolve(settings)):
        console.out.print()
        console.out.print(Text(answer.query, style="cyan"))
        if answer.problem:
            console.out.print(f"{answer.system} does not answer this one ({answer.problem})")
        else:
            console.print_table(answer.system, answer.columns, answer.rows[:SHOWN_ROWS])
            if len(answer.rows) > SHOWN_ROWS:
                console.out.print(f"… {len(answer.rows):,} rows in all")
    home = Home.of(settings)
    console.out.print()
    console.out.print(f"site       {home.site / 'index.html'}")
    console.out.print(f"dbt docs   {home.site / 'docs.html'}")
    console.out.print(f'warehouse  {home.published}   (ask it: warehouse query "select …")')
    console.out.print(
        "next       warehouse simulate advance --days 1, then refresh again; warehouse sources down to stop"
    )


def _show_moved(report: RunReport) -> None:
    ingest = next((step.detail for step in report.steps if step.step == "ingest"), None)
    if ingest is None:
        return
    tables = [
        (f"{source}.{name}", counts)
        for source, part in ingest["sources"].items()
        for name, counts in part["tables"].items()
    ]
    moved = [
        (name, c["landed_rows"], c["unchanged_rows"], c["deleted_rows"], c["quarantined_rows"])
        for name, c in tables
        if c["landed_rows"] or c["deleted_rows"] or c["quarantined_rows"]
    ]
    unchanged = sum(counts["unchanged_rows"] for _, counts in tables)
    if moved:
        console.print_table("moved", ("table", "new", "unchanged", "deleted", "quarantined"), moved)
    console.out.print(
        f"{ingest['landed_rows']:,} new rows landed; {unchanged:,} rows were read again and had not changed"
        if ingest["landed_rows"]
        else f"nothing new at the sources: {unchanged:,} rows were compared and had not changed"
    )
    for source, part in ingest["sources"].items():
        for alert in part["alerts"]:
            console.out.print(Text(f"{source}: {alert}", style="yellow"))


def _remark(detail: dict[str, Any]) -> str:
    """The figures of one step that fit a line."""
    shown = {
        name: value
        for name, value in detail.items()
        if isinstance(value, int | str) and not isinstance(value, bool) and name not in {"run_id", "path"}
    }
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in shown.items())


def show_reconciliation(result: Reconciliation, as_json: bool) -> None:
    """Every table against its source."""
    if as_json:
        console.print_json(result.to_dict())
        return
    rows = [
        (
            f"{table.source}.{table.table}",
            table.source_rows,
            table.warehouse_rows,
            table.quarantined_rows,
            table.missing_rows,
            table.surplus_rows,
            table.different_rows,
            table.repeated_rows,
            "" if table.source_amount is None else ("differs" if table.amounts_differ else "equal"),
        )
        for table in result.tables
    ]
    columns = ("table", "source", "warehouse", "quarantined", "missing", "surplus", "different", "repeated", "amount")
    console.print_table("reconciliation", columns, rows)
    for table in result.tables:
        if table.expired_rows or table.skipped_offsets:
            console.out.print(
                f"{table.source}.{table.table}: {table.expired_rows:,} landed messages have left the broker, "
                f"{table.skipped_offsets:,} offsets hold no message"
            )
        for problem in table.problems:
            console.out.print(Text(problem, style="red"))
    style = "bold red" if result.differences else "green"
    console.out.print(Text(f"{result.differences:,} differences", style=style))


def show_status(status: Status, as_json: bool) -> None:
    """What is loaded and how fresh."""
    if as_json:
        console.print_json(status.to_dict())
        return
    run = status.last_run
    console.out.print(f"home       {status.home}")
    console.out.print(f"running    {status.running or 'nothing'}")
    console.out.print(
        f"last run   {run['run_id']}: {run['status']} in {run['seconds']:.0f} s" if run else "last run   none yet"
    )
    if run and run["error"]:
        console.out.print(Text(f"           {run['error']['what']}", style="red"))
    if status.published_at:
        console.out.print(
            f"published  {status.published_at:%Y-%m-%d %H:%M} UTC, {status.published_age_hours:.1f} h ago"
        )
    else:
        console.out.print("published  nothing yet")
    if status.problem:
        console.out.print(Text(f"problem    {status.problem}", style="red"))
    for border, quality in status.quality.items():
        console.out.print(
            f"quality    {border}: {quality.get('evaluated', 0)} expectations, {len(quality.get('failed', []))} failed"
        )
    loads = [
        (
            f"{load.source}.{load.table}",
            load.mode,
            f"{load.age_hours:.1f}",
            load.source_rows,
            load.landed_rows,
            load.deleted_rows,
            load.quarantined_rows,
            "" if load.amount_sum is None else str(load.amount_sum),
            _shortened(load.cursor_to),
            f"{load.seconds:.1f}",
            load.lake_bytes,
        )
        for load in status.loads
    ]
    if loads:
        columns = (
            "table", "mode", "hours ago", "read", "new", "deleted", "quarantined", "amount sum", "read to", "seconds",
            "bytes",
        )  # fmt: skip
        console.print_table("loads", columns, loads)
    for alert in status.alerts:
        console.out.print(Text(f"quarantine {alert}; `warehouse ingest --retry-quarantined`", style="yellow"))
    if status.published_rows:
        console.print_table("published", ("table", "rows"), list(status.published_rows.items()))


def _shortened(cursor: str | None) -> str:
    """A cursor that fits a column: offsets as they are, times to the second."""
    return "" if cursor is None else cursor[:19] if "T" in cursor else cursor


def show_definitions(metrics: Metrics, as_json: bool) -> None:
    """What can be asked: metrics with their definitions, and saved queries."""
    definitions = list(metrics.definitions.values())
    saved = {name: str(query.description) for name, query in metrics.saved.items()}
    if as_json:
        console.print_json({"metrics": [found.to_dict() for found in definitions], "saved_queries": saved})
        return
    console.print_table("metrics", ("metric", "is"), [(found.name, found.description) for found in definitions])
    console.print_table("saved queries", ("--saved", "is"), list(saved.items()))


def show_findings(findings: list[Finding], as_json: bool) -> None:
    """What the doctor saw, worst first."""
    if as_json:
        console.print_json([asdict(finding) for finding in findings])
        return
    for finding in findings:
        console.out.print(
            Text(f"{finding.severity:<8}", style=_SEVERITY_STYLE.get(finding.severity, "")), Text(finding.what)
        )
        if finding.todo:
            console.out.print(Text(f"        → {finding.todo}"))
    if not findings:
        console.out.print("nothing is broken")
