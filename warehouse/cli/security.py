"""`warehouse privacy …`: the audit log, detections, roles."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from warehouse.cli import console
from warehouse.cli.context import ready_settings
from warehouse.core.errors import ConfigurationError

if TYPE_CHECKING:
    from warehouse.privacy.alerts import Round

audit_app = typer.Typer(help="Who did what, when, from where, with which outcome.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]


def add_to(privacy_app: typer.Typer) -> None:
    """Hang these commands below `warehouse privacy`."""
    privacy_app.add_typer(audit_app, name="audit")
    privacy_app.command("detect")(detect)
    privacy_app.command("roles")(roles)


@audit_app.command("verify")
def audit_verify(
    contains: Annotated[
        str | None, typer.Option(help="A head that was printed earlier: the log must still hold it.")
    ] = None,
    json_: Json = False,
) -> None:
    """Check every record against the chain and its signed head; exit 9 when something was changed."""
    with console.errors(json_):
        from warehouse.privacy.audit import AuditError, verify

        result = verify(ready_settings(), contains=contains)
        if json_:
            console.print_json(result.to_dict())
        else:
            console.out.print(f"{result.records} records, head {result.head}")
            console.out.print(f"signed under {', then '.join(result.keys)}")
            for torn in result.torn:
                console.out.print(f"after record {torn.after}: {torn.bytes} bytes that a killed writer left")
            for problem in result.problems:
                console.out.print(f"TAMPERED: {problem}")
        if not result.intact:
            raise typer.Exit(AuditError.exit_code)


@audit_app.command("tail")
def audit_tail(
    count: Annotated[int, typer.Option("--lines", "-n", min=1, help="How many records.")] = 20, json_: Json = False
) -> None:
    """Show the last records."""
    with console.errors(json_):
        from datetime import UTC, datetime

        from warehouse.privacy.audit import tail

        entries = tail(ready_settings(), count)
        if json_:
            console.print_json(entries)
            return
        rows: list[tuple[object, ...]] = []
        for entry in entries:
            if "record" not in entry:
                rows.append((None, None, None, None, "torn line", None, None))
                continue
            event = entry["record"]
            rows.append(
                (
                    entry["seq"],
                    datetime.fromtimestamp(event["time"] / 1000, UTC).isoformat(timespec="seconds"),
                    event["actor"]["user"]["name"],
                    event["src_endpoint"]["ip"],
                    event["metadata"]["event_code"],
                    event["status"],
                    ", ".join(item["name"] for item in event["resources"]),
                )
            )
        console.print_table(None, ("record", "when", "who", "from", "what", "outcome", "resources"), rows)


@audit_app.command("land")
def audit_land(
    snowflake: Annotated[
        Path | None,
        typer.Option(
            help="Land rows of Snowflake's LOGIN_, QUERY_ and ACCESS_HISTORY, too: JSON lines.",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    json_: Json = False,
) -> None:
    """Land what was recorded into raw_ops.access_audit, as each refresh does; `ops_access_audit` shows it."""
    with console.errors(json_):
        import orjson

        from ingestion.raw import create_raw_tables
        from warehouse.cli.context import audited
        from warehouse.core.database import open_warehouse
        from warehouse.core.locks import writer_lock
        from warehouse.privacy import access_audit
        from warehouse.privacy.ocsf import Activity

        settings = ready_settings()
        with (
            audited(settings, Activity.INGEST, keys=("warehouse",)) as trail,
            writer_lock(settings, "audit land"),
            open_warehouse(settings) as connection,
        ):
            create_raw_tables(connection)
            landed = {"warehouse": access_audit.land_own(connection, settings)}
            if snowflake is not None:
                try:
                    rows = [orjson.loads(line) for line in snowflake.read_bytes().splitlines()]
                    landed["snowflake"] = access_audit.land_snowflake(connection, rows)
                except (ValueError, KeyError, TypeError):
                    raise ConfigurationError(
                        f"{snowflake.name} does not hold rows of Snowflake's history as JSON lines",
                        todo="the runbook (detections) has the statement that exports them",
                    ) from None
            trail.rows = sum(landed.values())
        if json_:
            console.print_json(landed)
        else:
            console.out.print(", ".join(f"{rows:,} rows of {system}" for system, rows in landed.items()))


def detect(
    follow: Annotated[bool, typer.Option("--follow", help="Go on looking; alerts are out within seconds.")] = False,
    snowflake: Annotated[
        Path | None,
        typer.Option(
            help="Look at rows of Snowflake's LOGIN_, QUERY_ and ACCESS_HISTORY, too: JSON lines.",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    rounds: Annotated[int | None, typer.Option(min=1, help="With --follow: stop after so many looks.")] = None,
    json_: Json = False,
) -> None:
    """Run the detections over the audit log and alert (file, ALERT_WEBHOOK, ALERT_SYSLOG); exit 1 when undelivered."""
    with console.errors(json_):
        import orjson

        from warehouse.privacy import alerts
        from warehouse.privacy.detections.snowflake import from_snowflake

        settings = ready_settings()
        if follow:
            if snowflake is not None:
                raise ConfigurationError("--follow reads the audit log", todo="give --snowflake without --follow")
            alerts.follow(settings, lambda found: _show_round(found, json_), rounds=rounds)
            return
        rows = []
        if snowflake is not None:
            try:
                rows = list(from_snowflake(map(orjson.loads, snowflake.read_bytes().splitlines())))
            except (ValueError, KeyError, TypeError):
                raise ConfigurationError(
                    f"{snowflake.name} does not hold rows of Snowflake's history as JSON lines",
                    todo="the runbook (detections) has the statement that exports them",
                ) from None
        found = alerts.Watch(settings).look(rows)
        _show_round(found, json_)
        if found.undelivered:
            raise typer.Exit(1)


def _show_round(found: Round, as_json: bool) -> None:
    if as_json:
        console.print_json(found.to_dict())
        return
    for alert in found.new:
        console.out.print(f"{alert.time}  {alert.severity.upper()}  {alert.detection}: {alert.why} ({alert.user})")
    for item in found.undelivered:
        console.out.print(f"{item.sink} did not take {item.alert.detection} ({item.reason}); it is offered again")
    if not found.new and not found.undelivered:
        console.out.print("nothing new")


def roles(
    sql: Annotated[bool, typer.Option("--sql", help="Print Snowflake's DDL: roles, policies, grants.")] = False,
    export: Annotated[str | None, typer.Option(help="Make this role's export now.")] = None,
    json_: Json = False,
) -> None:
    """Who may see what, by roles.yml and the classification of the last build."""
    with console.errors(json_):
        from warehouse.core.settings import CATALOG
        from warehouse.exports import classified, export_role
        from warehouse.privacy.roles import load_policy
        from warehouse.privacy.roles_snowflake import snowflake_ddl

        settings, policy = ready_settings(), load_policy()
        if export is not None:
            with console.progress(quiet=json_) as progress:
                report = export_role(settings, export, progress).to_dict()
            console.print_json(report) if json_ else console.print_table(None, tuple(report), [tuple(report.values())])
            return
        known = classified(settings)
        if sql:
            typer.echo("".join(f"{statement};\n" for statement in snowflake_ddl(policy, known, CATALOG)), nl=False)
            return
        matrix = {
            name: {item.qualified: seen for item in known if (seen := policy.columns(role, item))}
            for name, role in policy.roles.items()
        }
        if json_:
            console.print_json(matrix)
            return
        rows = []
        for name, tables in matrix.items():
            views = [view for columns in tables.values() for view in columns.values()]
            role = policy.roles[name]
            rows.append((name, role.kind, len(tables), views.count("plain"), views.count("masked"), role.purpose))
        console.print_table(None, ("role", "kind", "tables", "plain", "masked", "purpose"), rows)
