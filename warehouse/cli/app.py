"""Commands: each reads the settings, calls one function of the package that does the work, shows what it returns."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from warehouse.cli import console, incidents, privacy, security, subjects
from warehouse.cli.context import audited
from warehouse.cli.context import ready_settings as _settings
from warehouse.core.errors import ConfigurationError, LoadIncomplete
from warehouse.core.keys import TOKEN_KEY
from warehouse.core.settings import Settings, Target, load_settings
from warehouse.privacy.ocsf import Activity, Resource

if TYPE_CHECKING:  # a command imports what it needs when it runs
    from ingestion.compaction import Housekeeping
    from ingestion.schema import SourceName

app = typer.Typer(
    name="warehouse",
    help="The payments warehouse: land, model, check, publish, ask.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,  # locals may hold values and keys
    rich_markup_mode=None,
)
sources_app = typer.Typer(help="The embedded source systems, for every *_URI that is not set.", no_args_is_help=True)
simulate_app = typer.Typer(help="Fill the embedded source systems with a seeded company.", invoke_without_command=True)
app.add_typer(sources_app, name="sources")
app.add_typer(simulate_app, name="simulate")
lake_app = typer.Typer(
    help="Housekeeping of the lake: join small loads, drop versions out of retention.", no_args_is_help=True
)
app.add_typer(lake_app, name="lake")
privacy_app = typer.Typer(help="Privacy and security: who did what, and who may see what.", no_args_is_help=True)
app.add_typer(privacy_app, name="privacy")
privacy.add_to(privacy_app)
security.add_to(privacy_app)
incidents.add_to(privacy_app)
subjects.add_to(privacy_app)

WRITER_KEYS = ("warehouse", "published", "lake", "vault", TOKEN_KEY)
"""What landing opens; a refresh publishes, too."""

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]


class SourceChoice(StrEnum):
    """What `ingest` can be limited to."""

    oltp = "oltp"
    mongodb = "mongodb"
    stream = "stream"
    files = "files"


class Format(StrEnum):
    """How `query` prints."""

    table = "table"
    csv = "csv"
    json = "json"
    parquet = "parquet"


def main() -> None:
    """Entry point of the `warehouse` script."""
    app()


@app.command()
def refresh(
    target: Annotated[str | None, typer.Option(help="duckdb, snowflake or spark; default DBT_TARGET.")] = None,
    full: Annotated[bool, typer.Option("--full", help="Compare every row, rebuild every model.")] = False,
    json_: Json = False,
) -> None:
    """Bring everything up to date: land, check, build, check, publish, site. Run it again: only what is new moves."""
    with console.errors(json_):
        _check_target(target)
        from warehouse.cli.summary import show_refresh
        from warehouse.refresh import refresh as run

        settings = _settings(target)
        with (
            audited(settings, Activity.REFRESH, keys=WRITER_KEYS, announce=True),
            console.progress(quiet=json_) as progress,
        ):
            report = run(settings, full=full, progress=progress)
        if json_:
            console.print_json(report.to_dict())
        else:
            show_refresh(settings, report)


@sources_app.command("up")
def sources_up(json_: Json = False) -> None:
    """Start (or adopt) the embedded servers; they go on running until `sources down`."""
    with console.errors(json_):
        from warehouse import servers

        settings = _settings()
        with console.progress(quiet=json_) as progress:
            servers.up(settings, progress=progress)
        _show_servers(settings, json_)


@sources_app.command("down")
def sources_down(json_: Json = False) -> None:
    """Stop the embedded servers cleanly; their data stays."""
    with console.errors(json_):
        from warehouse import servers

        settings = _settings()
        with console.progress(quiet=json_) as progress:
            servers.down(settings, progress=progress)
        _show_servers(settings, json_)


@sources_app.command("status")
def sources_status(json_: Json = False) -> None:
    """Which servers run, where, and how much they hold."""
    with console.errors(json_):
        _show_servers(_settings(), json_)


@simulate_app.callback()
def simulate(
    context: typer.Context,
    dataset: Annotated[str | None, typer.Option(help="reference or company; default DATASET.")] = None,
    json_: Json = False,
) -> None:
    """Fill the embedded sources, once: filled ones are left alone."""
    if context.invoked_subcommand is not None:
        return
    with console.errors(json_):
        from warehouse import servers, simulation

        settings = _settings()
        if dataset is not None:
            settings = load_settings(dataset=dataset)
        with console.progress(quiet=json_) as progress:
            report = simulation.fill(settings, servers.up(settings, progress=progress), progress=progress)
        _show_simulation(report, json_)


@simulate_app.command("advance")
def simulate_advance(
    days: Annotated[int, typer.Option(min=1, max=3660, help="How many days to move the company forward.")] = 1,
    json_: Json = False,
) -> None:
    """Move the simulated company forward, so that the next refresh has something to do."""
    with console.errors(json_):
        from warehouse import servers, simulation

        settings = _settings()
        with console.progress(quiet=json_) as progress:
            report = simulation.advance(settings, servers.up(settings, progress=progress), days, progress=progress)
        _show_simulation(report, json_)


@app.command()
def ingest(
    source: Annotated[list[SourceChoice] | None, typer.Argument(help="Which sources; default all.")] = None,
    full: Annotated[bool, typer.Option("--full", help="Compare every row; read topics from their beginning.")] = False,
    accept_deletes: Annotated[
        bool, typer.Option("--accept-deletes", help="Let a comparison delete more than the threshold.")
    ] = False,
    reconcile_keys: Annotated[
        bool, typer.Option("--reconcile-keys", help="Compare all keys of large tables: finds deletions.")
    ] = False,
    reconcile: Annotated[
        bool,
        typer.Option("--reconcile", help="Land nothing: compare every row with its source; exit 5 on a difference."),
    ] = False,
    retry_quarantined: Annotated[
        bool,
        typer.Option("--retry-quarantined", help="Read only the rows in quarantine again; land those that fit now."),
    ] = False,
    discard_pending: Annotated[
        bool, typer.Option("--discard-pending", help="Give up packages that cannot be loaded, then land as usual.")
    ] = False,
    follow: Annotated[
        bool,
        typer.Option(
            "--follow",
            help="Go on landing what the logs of MongoDB and Kafka, or of named sources, tell: micro-batches.",
        ),
    ] = False,
    max_batches: Annotated[int | None, typer.Option(min=1, help="With --follow: stop after so many.")] = None,
    json_: Json = False,
) -> None:
    """Land what is new into the lake and raw_*, through the privacy boundary."""
    if follow:
        _follow(source, full, max_batches, json_)
        return
    with console.errors(json_):
        if reconcile and (full or accept_deletes or reconcile_keys or retry_quarantined or discard_pending):
            raise ConfigurationError("--reconcile lands nothing", todo="give it without another option")
        from ingestion.run import ALL_SOURCES
        from ingestion.run import discard_pending as discard
        from ingestion.run import ingest as run
        from warehouse import servers
        from warehouse.core.endpoints import Endpoints
        from warehouse.core.locks import writer_lock
        from warehouse.report import RunReport

        settings = _settings()
        chosen = tuple(name for name in ALL_SOURCES if not source or name in {choice.value for choice in source})
        if reconcile:
            _reconcile(settings, chosen, json_)
            return
        with (
            audited(settings, Activity.INGEST, keys=WRITER_KEYS, announce=True) as trail,
            writer_lock(settings, "ingest"),
            console.progress(quiet=json_) as progress,
        ):
            trail.resources += [Resource("database", name) for name in chosen]
            if discard_pending:
                for name, loads in discard(settings, chosen).items():
                    progress(f"{name}: {loads} loads discarded; their rows are read again")
            report = run(
                settings,
                servers.resolve(settings) if chosen != ("files",) else Endpoints(None, None, None),
                run_id=RunReport.start().run_id,
                sources=chosen,
                full=full,
                accept_deletes=accept_deletes,
                reconcile_keys=reconcile_keys,
                retry_quarantined=retry_quarantined,
                progress=progress,
            )
        if json_:
            console.print_json(report.to_dict())
        else:
            rows = [
                (
                    f"{item.source}.{name}", counts.source_rows, counts.landed_rows, counts.unchanged_rows,
                    counts.deleted_rows, counts.quarantined_rows,
                )
                for item in report.sources
                for name, counts in item.tables.items()
            ]  # fmt: skip
            console.print_table(None, ("table", "read", "new", "unchanged", "deleted", "quarantined"), rows)
            for item in report.sources:
                if item.resolved:
                    console.out.print(f"{item.source}: {item.resolved} quarantined rows fit now and are resolved")
                for alert in item.alerts:
                    console.out.print(f"{item.source}: {alert}")


def _follow(source: list[SourceChoice] | None, full: bool, max_batches: int | None, json_: bool) -> None:
    with console.errors(json_):
        from ingestion.follow import FOLLOWED
        from ingestion.follow import follow as run
        from ingestion.run import LIVE_SOURCES
        from warehouse import servers
        from warehouse.report import RunReport

        settings = _settings()
        chosen = tuple(name for name in LIVE_SOURCES if name in {choice.value for choice in source or ()}) or FOLLOWED
        with (
            audited(settings, Activity.INGEST, keys=WRITER_KEYS, announce=True),
            console.progress(quiet=json_) as progress,
        ):
            report = run(
                settings,
                servers.resolve(settings),
                new_run_id=lambda: RunReport.start().run_id,
                sources=chosen,
                full=full,
                max_batches=max_batches,
                progress=progress,
            )
        if json_:
            console.print_json(report.to_dict())
        else:
            landed = ", ".join(f"{rows:,} of {name}" for name, rows in report.landed.items())
            console.out.print(f"{report.batches} batches landed: {landed or 'nothing'}")


@app.command()
def replay(
    since: Annotated[
        str | None, typer.Option("--from", help="A load id: keep what earlier loads brought, replay from this one on.")
    ] = None,
    json_: Json = False,
) -> None:
    """Rebuild raw_* from the lake alone: verified, then swapped in whole. No source is asked, no cursor moves."""
    with console.errors(json_):
        from ingestion.replay import replay as run
        from warehouse.core.locks import writer_lock

        settings = _settings()
        with (
            audited(settings, Activity.REPLAY, keys=("warehouse", "lake", TOKEN_KEY), announce=True),
            writer_lock(settings, "replay"),
            console.progress(quiet=json_) as progress,
        ):
            report = run(settings, since=since, progress=progress)
        if json_:
            console.print_json(report.to_dict())
        else:
            rows = [(item.name, item.loads, item.versions, item.rows, item.erased) for item in report.tables]
            console.print_table(None, ("table", "loads", "versions", "rows", "erased"), rows)


@lake_app.command("compact")
def lake_compact(
    min_loads: Annotated[int, typer.Option(min=2, help="Join a table's small loads when there are this many.")] = 8,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would be done.")] = False,
    json_: Json = False,
) -> None:
    """Join the small loads of each table into one with the same rows."""
    with console.errors(json_):
        from ingestion.compaction import compact
        from warehouse.core.locks import writer_lock

        settings = _settings()
        with (
            audited(settings, Activity.HOUSEKEEPING, keys=("warehouse", "lake", TOKEN_KEY), announce=True),
            writer_lock(settings, "lake compact"),
            console.progress(quiet=json_) as progress,
        ):
            _show_housekeeping(compact(settings, min_loads=min_loads, dry_run=dry_run, progress=progress), json_)


@lake_app.command("retain")
def lake_retain(
    days: Annotated[int, typer.Option(min=1, help="Versions that landed before this many days may go.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would be done.")] = False,
    json_: Json = False,
) -> None:
    """Drop old versions from lake and history; the last version of a key always stays. Nothing does this by itself."""
    with console.errors(json_):
        from ingestion.compaction import retain
        from warehouse.core.locks import writer_lock

        settings = _settings()
        with (
            audited(settings, Activity.HOUSEKEEPING, keys=("warehouse", "lake", TOKEN_KEY), announce=True),
            writer_lock(settings, "lake retain"),
            console.progress(quiet=json_) as progress,
        ):
            _show_housekeeping(retain(settings, days=days, dry_run=dry_run, progress=progress), json_)


@lake_app.command("unseal")
def lake_unseal(
    file: Annotated[
        Path, typer.Argument(help="A file of _quarantined/ in the drop folder.", exists=True, dir_okay=False)
    ],
    out: Annotated[Path, typer.Argument(help="Where its plain text goes: a new file that only you can read.")],
) -> None:
    """Write a dropped file that had rows which did not fit out as it came. It may hold personal data."""
    with console.errors(as_json=False):
        from ingestion.sources.files.drops import unseal
        from warehouse.core.database import open_warehouse

        settings = _settings()
        with (
            audited(settings, Activity.KEY_USE, keys=("warehouse", "lake", TOKEN_KEY), announce=True),
            open_warehouse(settings, read_only=True) as connection,
        ):
            blocks = unseal(connection, file)
            first = next(blocks, b"")
            descriptor = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as plain:
                plain.write(first)
                plain.writelines(blocks)


@app.command()
def backup(json_: Json = False) -> None:
    """Copy warehouse, lake, vault and positions aside, encrypted as they are; keys are never in a backup."""
    with console.errors(json_):
        from warehouse.backup import back_up
        from warehouse.core.locks import writer_lock

        settings = _settings()
        with audited(settings, Activity.BACKUP, announce=True), writer_lock(settings, "backup"):
            place = back_up(settings)
        console.print_json({"backup": place.name}) if json_ else console.out.print(f"made {place.name}")


@app.command()
def backups(json_: Json = False) -> None:
    """The backups there are, oldest first."""
    with console.errors(json_):
        from warehouse.core.backups import backup_places

        names = [place.name for place in backup_places(_settings())]
        console.print_json({"backups": names}) if json_ else console.print_table(
            None, ("backup",), [(n,) for n in names]
        )


@app.command()
def restore(name: Annotated[str, typer.Argument(help="One of `warehouse backups`.")], json_: Json = False) -> None:
    """Put a backup in place of the warehouse, without whom was erased since; then `warehouse refresh`."""
    with console.errors(json_):
        from warehouse.backup import restore as run
        from warehouse.core.locks import writer_lock

        settings = _settings()
        with (
            audited(settings, Activity.RESTORE, keys=WRITER_KEYS, announce=True),
            writer_lock(settings, "restore"),
            console.progress(quiet=json_) as progress,
        ):
            done = run(settings, name, progress)
        if json_:
            console.print_json(vars(done))
        else:
            console.out.print(f"restored {done.backup}; {done.erased} erased again; run `warehouse refresh` now")


@app.command()
def build(
    select: Annotated[str | None, typer.Option(help="dbt selection, for example `fct_sales+`.")] = None,
    json_: Json = False,
) -> None:
    """Run `dbt build` on what has landed. Plain `dbt build` does the same."""
    with console.errors(json_):
        from warehouse.core.locks import writer_lock
        from warehouse.dbt import run_dbt

        settings = _settings()
        with (
            audited(settings, Activity.BUILD, keys=("warehouse",), announce=True),
            writer_lock(settings, "build"),
            console.progress(quiet=json_) as progress,
        ):
            result = run_dbt(settings, ["build", *(["--select", select] if select else [])], progress=progress)
        if json_:
            console.print_json(result.counts)
        else:
            console.out.print(", ".join(f"{count} {status}" for status, count in sorted(result.counts.items())))


@app.command()
def check(json_: Json = False) -> None:
    """Run both expectation suites, landing and publishing; exit 6 when one fails."""
    with console.errors(json_):
        from expectations import run_landing, run_publishing
        from warehouse.core.locks import writer_lock

        settings = _settings()
        with (
            audited(settings, Activity.CHECK, keys=("warehouse",)),
            writer_lock(settings, "check"),
            console.progress(quiet=json_) as progress,
        ):
            reports = [run_landing(settings, progress=progress), run_publishing(settings, progress=progress)]
        failed = [(item.suite, item.expectation, item.column) for report in reports for item in report.failed]
        if json_:
            console.print_json({"evaluated": sum(r.evaluated for r in reports), "failed": failed})
        else:
            console.out.print(f"{sum(r.evaluated for r in reports)} expectations, {len(failed)} failed")
            if failed:
                console.print_table(None, ("suite", "expectation", "column"), failed)
        if failed:
            raise typer.Exit(6)


@app.command()
def publish(json_: Json = False) -> None:
    """Swap in a new copy of the marts for readers; open readers keep theirs."""
    with console.errors(json_):
        from warehouse.core.locks import writer_lock
        from warehouse.exports import export_configured
        from warehouse.publish import publish as run

        settings = _settings()
        with (
            audited(settings, Activity.PUBLISH, keys=("warehouse", "published"), announce=True) as trail,
            writer_lock(settings, "publish"),
            console.progress(quiet=json_) as progress,
        ):
            report = run(settings, progress)
            trail.rows = sum(report.tables.values())
            for role in export_configured(settings, progress):
                trail.resources.append(Resource("role", role.role))
        if json_:
            console.print_json(report.to_dict())
        else:
            console.out.print(f"published {len(report.tables)} tables, {sum(report.tables.values()):,} rows")


@app.command()
def site(json_: Json = False) -> None:
    """Write the site: dbt docs, data docs, the last run."""
    with console.errors(json_):
        from warehouse.core.locks import writer_lock
        from warehouse.dbt import run_dbt
        from warehouse.site import build_site

        settings = _settings()
        with (
            audited(settings, Activity.SITE, keys=("warehouse",)),
            writer_lock(settings, "site"),
            console.progress(quiet=json_) as progress,
        ):
            run_dbt(settings, ["docs", "generate", "--static"], progress=progress)
            path = build_site(settings, progress)
        if json_:
            console.print_json({"site": str(path)})
        else:
            console.out.print(f"the site is at {path}")


@app.command(name="bus-matrix")
def bus_matrix() -> None:
    """Print which fact joins which dimension, as Markdown, from the models as they are."""
    with console.errors():
        import json

        from warehouse.bus_matrix import bus_matrix as read
        from warehouse.core.paths import Home
        from warehouse.dbt import run_dbt

        settings = _settings()
        run_dbt(settings, ["parse"])
        manifest = json.loads((Home.of(settings).dbt_target / "manifest.json").read_text(encoding="utf-8"))
        typer.echo(read(manifest).markdown(), nl=False)


@app.command()
def query(
    sql: Annotated[str, typer.Argument(help="SQL on the published warehouse; `-` reads it from standard input.")],
    format_: Annotated[Format, typer.Option("--format", help="How to print the rows.")] = Format.table,
    role: Annotated[str | None, typer.Option(help="Ask what this role may see, and nothing else (roles.yml).")] = None,
) -> None:
    """Ask the published warehouse, read-only: nothing in the query can reach a file, the network or a setting."""
    with console.errors():
        from warehouse.exports import key_name, open_export
        from warehouse.privacy.roles import load_policy
        from warehouse.query import ask, run_query, write

        text = sys.stdin.read() if sql == "-" else sql
        settings = _settings()
        if role is not None:
            load_policy().role(role)  # before anything is recorded: a name that is no role's is not written down
        key = "published" if role is None else key_name(role)
        with audited(settings, Activity.QUERY, keys=(key,), role=role, statement=text) as trail:
            tables: list[str] = []
            try:
                if role is None:
                    result = run_query(settings, text, tables=tables)
                else:
                    with open_export(settings, role) as connection:
                        result = ask(connection, text, tables=tables)
                trail.rows = result.num_rows
            finally:
                trail.resources += [Resource("table", name) for name in tables]
        with suppress(BrokenPipeError):  # `warehouse query … | head` has seen enough
            write(result, format_.value, sys.stdout.buffer)


@app.command()
def metric(
    names: Annotated[list[str] | None, typer.Argument(help="Metrics; none: list them with their definitions.")] = None,
    by: Annotated[list[str] | None, typer.Option(help="Group by a dimension; day … year is a time.")] = None,
    where: Annotated[str | None, typer.Option(help="Condition on dimensions: \"currency_code = 'EUR'\".")] = None,
    order: Annotated[list[str] | None, typer.Option(help="Order by a column; -NAME: descending.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many rows.")] = None,
    saved: Annotated[str | None, typer.Option(help="A saved query, instead of all of these.")] = None,
    dimensions: Annotated[bool, typer.Option("--dimensions", help="What these metrics can be grouped by.")] = False,
    sql: Annotated[bool, typer.Option("--sql", help="Show the statement instead of running it.")] = False,
    json_: Json = False,
) -> None:
    """Ask for a metric by its definition. A rate comes with its numerator and its denominator."""
    with console.errors(json_):
        from warehouse.cli.summary import show_definitions
        from warehouse.metrics import Metrics
        from warehouse.query import write

        if saved is not None and (names or by or where or order or limit):
            raise ConfigurationError("a saved query says itself what it asks", todo="give --saved NAME alone")
        settings = _settings()
        metrics = Metrics(settings)
        if saved is None and not names:
            show_definitions(metrics, json_)
            return
        if dimensions:
            found = [*metrics.dimensions(names or []), "day", "week", "month", "quarter", "year"]
            console.print_json(found) if json_ else sys.stdout.write("\n".join(found) + "\n")
            return
        if saved is not None:
            statement = metrics.saved_sql(saved)
        else:
            statement = metrics.sql(names or [], by=by or [], where=where, order=order or [], limit=limit)
        if sql:
            sys.stdout.write(statement + "\n")
            return
        with audited(settings, Activity.QUERY, keys=("published",), statement=statement) as trail:
            result = metrics.run(statement)
            trail.rows = result.num_rows
        with suppress(BrokenPipeError):
            write(result, "json" if json_ else "table", sys.stdout.buffer)


@app.command()
def status(json_: Json = False) -> None:
    """What is loaded, how fresh it is, how the last run went."""
    with console.errors(json_):
        from warehouse.cli.summary import show_status
        from warehouse.status import status as read

        show_status(read(_settings()), json_)


@app.command()
def doctor(json_: Json = False) -> None:
    """Look for what is broken and say what to do about it; exit 1 when something is."""
    with console.errors(json_):
        from warehouse.cli.summary import show_findings
        from warehouse.status import doctor as examine

        findings = examine(_settings())
        show_findings(findings, json_)
        if any(finding.severity == "error" for finding in findings):
            raise typer.Exit(1)


def _reconcile(settings: Settings, sources: tuple[SourceName, ...], as_json: bool) -> None:
    from ingestion.reconcile import reconcile
    from warehouse import servers
    from warehouse.cli.summary import show_reconciliation
    from warehouse.core.endpoints import Endpoints
    from warehouse.core.locks import writer_lock

    with (
        audited(settings, Activity.RECONCILE, keys=("warehouse", "lake", TOKEN_KEY)),
        writer_lock(settings, "reconcile"),
        console.progress(quiet=as_json) as progress,
    ):
        endpoints = servers.resolve(settings) if sources != ("files",) else Endpoints(None, None, None)
        result = reconcile(settings, endpoints, sources=sources, progress=progress)
    show_reconciliation(result, as_json)
    if result.differences:
        raise typer.Exit(LoadIncomplete.exit_code)


def _check_target(target: str | None) -> None:
    known = Target.__args__  # type: ignore[attr-defined]  # the members of a Literal
    if target is not None and target not in known:
        raise ConfigurationError(f"there is no target {target!r}", todo=f"use one of {', '.join(known)}")


def _show_housekeeping(done: list[Housekeeping], as_json: bool) -> None:
    if as_json:
        console.print_json([item.to_dict() for item in done])
    elif done:
        rows = [tuple(item.to_dict().values()) for item in done]
        console.print_table(None, tuple(done[0].to_dict()), rows)
    else:
        console.out.print("there is nothing to do")


def _show_servers(settings: Settings, as_json: bool) -> None:
    from dataclasses import asdict

    from warehouse import servers

    found = [asdict(item) for item in servers.status(settings)]
    if as_json:
        console.print_json(found)
    else:
        columns = tuple(found[0])
        console.print_table(None, columns, [tuple(item.values()) for item in found])


def _show_simulation(report: object, as_json: bool) -> None:
    from dataclasses import asdict

    data = asdict(report)  # type: ignore[call-overload]  # a dataclass of the simulation
    if as_json:
        console.print_json(data)
    else:
        console.out.print(f"the simulated company stands at {data['current_date']}; {data['seconds']:.1f} s")
