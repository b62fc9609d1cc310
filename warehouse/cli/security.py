"""`warehouse privacy …`: the audit log, detections, roles."""

from __future__ import annotations

from typing import Annotated

import typer

from warehouse.cli import console
from warehouse.cli.context import ready_settings

audit_app = typer.Typer(help="Who did what, when, from where, with which outcome.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]


def add_to(privacy_app: typer.Typer) -> None:
    """Hang these commands below `warehouse privacy`."""
    privacy_app.add_typer(audit_app, name="audit")


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
