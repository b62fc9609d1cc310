"""`warehouse privacy …`: new keys, exercises, the breach register."""

from __future__ import annotations

from typing import Annotated

import typer

from warehouse.cli import console
from warehouse.cli.context import audited, ready_settings
from warehouse.privacy.ocsf import Activity, Resource

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]


def add_to(privacy_app: typer.Typer) -> None:
    """Hang these commands below `warehouse privacy`."""
    privacy_app.command("rotate-key")(rotate_key)
    privacy_app.command("rotate-token-key")(rotate_token_key)
    privacy_app.command("drill")(drill)
    privacy_app.command("breaches")(list_breaches)


def drill(
    scenario: Annotated[str, typer.Argument(help="leaked_key, stolen_export or poisoned_source.")],
    keep: Annotated[bool, typer.Option("--keep", help="Leave the copy below WAREHOUSE_HOME/drills.")] = False,
    json_: Json = False,
) -> None:
    """Inject an incident into a copy of the home, find it, count who is affected, answer it, write it down."""
    with console.errors(json_):
        from warehouse.core.locks import writer_lock
        from warehouse.drill import drill as run

        settings = ready_settings()
        with (
            audited(settings, Activity.DRILL, announce=True) as trail,
            writer_lock(settings, "drill"),
            console.progress(quiet=json_) as progress,
        ):
            report = run(settings, scenario, keep=keep, progress=progress)
            trail.resources.append(Resource("policy", f"drill/{scenario}"))
            trail.rows = report.breach.subjects
        if json_:
            console.print_json(report.to_dict())
            return
        rows = [(item["at"], item["what"], item.get("who"), item.get("outcome")) for item in report.breach.timeline]
        console.print_table("timeline", ("when", "what", "who", "outcome"), rows)
        breach = report.breach
        console.out.print(f"{breach.nature}; detected after {report.seconds_to_detect:.1f} s")
        console.out.print(
            f"{breach.subjects:,} people affected (who: the vault, incident {breach.incident}), "
            f"{breach.records:,} records"
        )
        console.out.print(f"the supervisory authority must know by {breach.deadline}, were it not an exercise")
        console.out.print(
            f"{report.receipt.key}: {report.receipt.tokens:,} tokens, {report.receipt.joins} joins, "
            f"{report.receipt.broken} broken; new keys too: {', '.join(report.rotated) or 'none'}"
        )


def list_breaches(json_: Json = False) -> None:
    """The breach register (GDPR 33(5)); exit 1 when an authority should have been told by now."""
    with console.errors(json_):
        from warehouse.privacy.breaches import breaches, overdue

        entries = breaches(ready_settings())
        late = [entry.incident for entry in entries if overdue(entry)]
        if json_:
            console.print_json([entry.to_dict() | {"overdue": entry.incident in late} for entry in entries])
        else:
            rows = [
                (item.incident, "exercise" if item.exercise else "breach", item.subjects, item.deadline,
                 item.notified_at or item.reason or ("OVERDUE" if item.incident in late else "open"))
                for item in entries
            ]  # fmt: skip
            console.print_table(None, ("incident", "kind", "people", "deadline", "authority"), rows)
        if late:
            raise typer.Exit(1)


def rotate_key(
    name: Annotated[list[str], typer.Argument(help="warehouse, vault, published, lake, audit, roles, or: all.")],
    json_: Json = False,
) -> None:
    """Write what a key opens anew under a new one; the old key goes last. Killed, it is ended by running it again."""
    with console.errors(json_):
        from warehouse.core.errors import ConfigurationError
        from warehouse.core.locks import writer_lock
        from warehouse.file_keys import NAMES, rotate_file_key

        names = list(NAMES) if name == ["all"] else list(dict.fromkeys(name))
        if unknown := [item for item in names if item not in NAMES]:
            raise ConfigurationError(
                f"{len(unknown)} of these are no keys to rotate", todo=f"use {', '.join(NAMES)} or all"
            )
        settings = ready_settings()
        done = []
        with (
            audited(settings, Activity.KEY_ROTATE, announce=True) as trail,
            writer_lock(settings, "rotate-key", rotates=True),
            console.progress(quiet=json_) as progress,
        ):
            trail.resources += [Resource("key", item) for item in names]
            # the writer's database last: everything else may still have to read it
            for item in sorted(names, key=lambda known: known == "warehouse"):
                done.append(rotate_file_key(settings, item, progress).to_dict())
        if json_:
            console.print_json(done)
        else:
            console.print_table(None, ("key", "files", "bytes"), [tuple(item.values()) for item in done])


def rotate_token_key(json_: Json = False) -> None:
    """Move every pseudonym to a new key, without a broken join; exit 5 when a join is not what it was."""
    with console.errors(json_):
        from warehouse.core.locks import writer_lock
        from warehouse.rotation import rotate_token_key as run

        settings = ready_settings()
        with (
            audited(settings, Activity.KEY_ROTATE, keys=("warehouse", "lake", "vault"), announce=True) as trail,
            writer_lock(settings, "rotate-token-key", rotates=True),
            console.progress(quiet=json_) as progress,
        ):
            receipt = run(settings, progress)
            trail.resources.append(Resource("key", receipt.key))
            trail.rows = receipt.tokens
        if json_:
            console.print_json(receipt.to_dict())
        else:
            console.out.print(
                f"{receipt.key}: {receipt.tokens:,} tokens in {receipt.joins} joins, {receipt.matched_before:,} pairs "
                f"matched before and {receipt.matched_after:,} after, {receipt.broken} joins broken"
            )
            console.out.print(f"the receipt is {receipt.path}")
