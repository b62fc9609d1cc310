"""`warehouse privacy …`: what is done with the data of one person. All of it is recorded, refusals too."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from warehouse.cli import console
from warehouse.cli.context import Trail, audited, ready_settings
from warehouse.core.keys import TOKEN_KEY
from warehouse.core.settings import Settings
from warehouse.privacy.ocsf import Activity, Actor, Resource
from warehouse.privacy.roles import Power

if TYPE_CHECKING:
    from warehouse.erasure import Receipt

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
Subject = Annotated[str, typer.Argument(help="The customer's or merchant's id, in either spelling.")]
Customer = Annotated[str, typer.Argument(help="The customer's id, in either spelling; no shop's.")]
Ticket = Annotated[str, typer.Option(help="The request's number, like DSR-123.")]
Role = Annotated[str, typer.Option(help="As whom; roles.yml says who may.")]
Code = Annotated[
    str, typer.Option(prompt="One-time code", hide_input=True, help="Of your authenticator; asked for when not given.")
]

ERASURE_KEYS = ("vault", "warehouse", "lake", TOKEN_KEY, "published")

hold_app = typer.Typer(help="Legal holds: who is restricted, and why.", no_args_is_help=True)


def add_to(privacy_app: typer.Typer) -> None:
    """Hang these commands below `warehouse privacy`."""
    for name, command in (
        ("enrol", enrol), ("reveal", reveal), ("export", export), ("erase", erase), ("receipts", receipts),
        ("register", register), ("retention", retention),
    ):  # fmt: skip
        privacy_app.command(name)(command)
    privacy_app.add_typer(hold_app, name="hold")


def enrol(
    role: Annotated[list[str], typer.Option(help="A role that this account acts as; may be repeated.")],
    json_: Json = False,
) -> None:
    """Make the secret of your one-time codes; it is shown this once."""
    with console.errors(json_):
        from warehouse.privacy.roles import load_policy
        from warehouse.privacy.totp import enrol as run

        settings, actor = ready_settings(), Actor.current()
        with audited(settings, Activity.ENROL) as trail:
            for name in role:
                load_policy().role(name)
                trail.resources.append(Resource("role", name))
            address = run(settings, actor.name, role)
        if json_:
            console.print_json({"account": actor.name, "roles": role, "address": address})
        else:
            console.out.print(f"{actor.name} may act as {', '.join(role)}. Enter this in your authenticator, now:")
            console.out.print(address, soft_wrap=True, highlight=False)


def reveal(
    subject: Subject,
    purpose: Annotated[
        str, typer.Option(help="access_request, incident, fraud_case, legal_order or support: what it is for.")
    ],
    ticket: Ticket,
    code: Code,
    role: Role = "compliance_officer",
    json_: Json = False,
) -> None:
    """Show the personal values of one subject, on the terminal only; exit 16 when it is not allowed."""
    with console.errors(json_):
        from warehouse.privacy.authorisation import checked_purpose, checked_ticket
        from warehouse.privacy.reveal import reveal as run

        settings = ready_settings()
        with _about(settings, Activity.REVEAL, subject, role, ("vault",)) as trail:
            trail.resources.append(Resource("ticket", checked_ticket(ticket)))
            trail.resources.append(Resource("purpose", checked_purpose(purpose)))
            found = run(
                settings, subject, account=Actor.current().name, role=role, purpose=purpose, ticket=ticket, code=code
            )
            trail.rows = len(found)
        rows = [(entry.source, entry.table, entry.row_key, entry.path, entry.value) for entry in found]
        if json_:
            names = ("source", "table", "row", "path", "value")
            console.print_json({"subject": subject, "values": [dict(zip(names, row, strict=True)) for row in rows]})
        else:
            console.print_table(None, ("source", "table", "row", "path", "value"), rows)


def export(
    subject: Subject,
    out: Annotated[Path, typer.Option(help="A new folder; files in it are readable by you alone.")],
    ticket: Ticket,
    code: Code,
    role: Role = "compliance_officer",
    json_: Json = False,
) -> None:
    """Write everything that is stored of a subject, as JSON and CSV with an index (GDPR 15 and 20)."""
    with console.errors(json_):
        from warehouse.core.locks import writer_lock
        from warehouse.subject_export import export_subject

        settings = ready_settings()
        keys = ("vault", "warehouse")
        with _authorised(settings, Activity.EXPORT, subject, role, "export", ticket, code, keys) as trail:
            with writer_lock(settings, "privacy export"):
                done = export_subject(settings, subject, out)
            trail.rows = done.rows
        if json_:
            console.print_json(done.to_dict())
        else:
            rows = [(file.table, file.rows, file.about) for file in done.files if file.name.endswith(".json")]
            console.print_table(None, ("table", "rows", "what it is"), rows)
            console.out.print(f"written to {done.folder}, begin with index.json")


def erase(
    subject: Customer,
    ticket: Ticket,
    code: Code,
    role: Role = "compliance_officer",
    json_: Json = False,
) -> None:
    """Erase a customer from everything but the sources, prove it, destroy their key. Interrupted: run it again."""
    with console.errors(json_):
        settings = ready_settings()
        with _authorised(settings, Activity.ERASE, subject, role, "erase", ticket, code, ERASURE_KEYS):
            receipt = _erased(settings, subject, ticket, quiet=json_)
        if json_:
            console.print_json(receipt.to_dict())
        else:
            console.out.print(f"erased in {receipt.seconds:,.1f} s, {receipt.residual} places found afterwards")
            console.out.print("the sources are not touched: what lies there is kept out from now on")
            console.out.print(f"receipt: erasure-{receipt.id}.json")


def receipts(
    subject: Annotated[str | None, typer.Option(help="Of this subject only.")] = None, json_: Json = False
) -> None:
    """The receipts of erasures; each is checked against its signature."""
    with console.errors(json_):
        from warehouse.erasure import verify_receipts

        found = verify_receipts(ready_settings(), subject)
        if json_:
            console.print_json({"receipts": [receipt.to_dict() for receipt in found]})
        else:
            rows = [
                (item.id, item.subject, item.ticket, item.status, item.residual, item.finished_at) for item in found
            ]
            console.print_table(None, ("receipt", "subject", "ticket", "status", "residual", "finished"), rows)


@hold_app.command("add")
def hold_add(
    subject: Subject,
    reason: Annotated[str, typer.Option(help="aml, tax, litigation or restriction_request.")],
    ticket: Ticket,
    code: Code,
    role: Role = "compliance_officer",
    json_: Json = False,
) -> None:
    """Restrict a subject: not revealed, exported or erased, and in no role's export, until the hold ends."""
    with console.errors(json_):
        from warehouse.privacy.holds import add_hold

        settings = ready_settings()
        with _authorised(settings, Activity.HOLD, subject, role, "hold", ticket, code):
            hold = add_hold(settings, subject, reason, ticket)
        _renew_exports(settings, quiet=json_)
        console.print_json(vars(hold)) if json_ else console.out.print(f"{hold.subject} is held: {hold.reason}")


@hold_app.command("release")
def hold_release(
    subject: Subject,
    reason: Annotated[str, typer.Option(help="Of the hold that ends.")],
    ticket: Ticket,
    code: Code,
    role: Role = "compliance_officer",
    json_: Json = False,
) -> None:
    """End a hold; an erasure that was asked for meanwhile is done at once."""
    with console.errors(json_):
        from warehouse.privacy.holds import release_hold

        settings = ready_settings()
        with _authorised(settings, Activity.HOLD, subject, role, "hold", ticket, code):
            due = release_hold(settings, subject, reason, ticket)
        receipt = None
        if due:
            with _about(settings, Activity.ERASE, subject, role, ERASURE_KEYS):
                receipt = _erased(settings, subject, ticket, quiet=json_)
        else:  # an erasure makes them anew, too
            _renew_exports(settings, quiet=json_)
        if json_:
            console.print_json({"released": reason, "erased": receipt.to_dict() if receipt else None})
        else:
            console.out.print(f"released: {reason}")
            if receipt:
                console.out.print(f"the erasure that waited is done: erasure-{receipt.id}.json")


@hold_app.command("list")
def hold_list(json_: Json = False) -> None:
    """The holds in force."""
    with console.errors(json_):
        from warehouse.privacy.holds import holds

        found = holds(ready_settings())
        if json_:
            console.print_json({"holds": [vars(hold) for hold in found]})
        else:
            rows = [(hold.subject, hold.reason, hold.ticket, hold.since) for hold in found]
            console.print_table(None, ("subject", "reason", "ticket", "since"), rows)


def register(
    out: Annotated[Path | None, typer.Option(help="Write the page here instead of printing it.")] = None,
    json_: Json = False,
) -> None:
    """The record of processing activities (GDPR 30), from the classification, the roles and the retention classes."""
    with console.errors(json_):
        from warehouse.register import register as run
        from warehouse.register import register_markdown

        if out is not None:
            out.write_text(register_markdown(), encoding="utf-8")
        if json_:
            console.print_json({"activities": [activity.to_dict() for activity in run()]})
        elif out is None:
            console.out.print(register_markdown(), markup=False, highlight=False, soft_wrap=True)


def retention(
    apply: Annotated[bool, typer.Option("--apply", help="Drop what is older, for good, from everything here.")] = False,
    json_: Json = False,
) -> None:
    """How long each kind of record may be kept, and how many rows are older. Nothing is dropped without --apply."""
    with console.errors(json_):
        if apply:
            _apply_retention(json_)
            return
        from warehouse.retention import overdue

        found = overdue(ready_settings())
        if json_:
            console.print_json({"classes": found})
        else:
            columns = ("record_type", "table", "months", "basis", "overdue", "undated", "applied_to")
            headings = ("class", "table", "months", "basis", "rows overdue", "rows without a date", "applied to")
            console.print_table(None, headings, [tuple(row[name] for name in columns) for row in found])


def _apply_retention(json_: bool) -> None:
    from warehouse.core.locks import writer_lock
    from warehouse.retention import apply_retention

    settings = ready_settings()
    with (
        audited(settings, Activity.RETENTION, keys=("warehouse", "lake", "vault", TOKEN_KEY), announce=True) as trail,
        writer_lock(settings, "privacy retention"),
        console.progress(quiet=json_) as progress,
    ):
        done = apply_retention(settings, progress)
        trail.rows = done.total
        trail.resources += [Resource("table", item.table) for item in done.tables if item.total]
    if json_:
        console.print_json(done.to_dict())
        return
    headings = ("table", "class", "older than", "rows", "history", "loads", "in the lake", "vault values", "held")
    console.print_table("dropped", headings, [tuple(vars(item).values()) for item in done.tables])
    if done.total:
        console.out.print("models, published copy and exports are made without it by the next `warehouse refresh`")
    else:
        console.out.print("nothing was older than its class allows")


def _renew_exports(settings: Settings, *, quiet: bool) -> None:
    from warehouse.exports import renew_exports

    with console.progress(quiet=quiet) as progress:
        renew_exports(settings, progress)


def _erased(settings: Settings, subject: str, ticket: str, *, quiet: bool) -> Receipt:
    from warehouse.core.locks import writer_lock
    from warehouse.erasure import erase as run

    with writer_lock(settings, "erase"), console.progress(quiet=quiet) as progress:
        return run(settings, subject, ticket, progress)


@contextmanager
def _about(settings: Settings, activity: Activity, subject: str, role: str, keys: tuple[str, ...]) -> Iterator[Trail]:
    """The record of what is done with a subject, whom it names by a pseudonym: it outlives an erasure."""
    from warehouse.privacy.pseudonyms import subject_pseudonym

    with audited(settings, activity, keys=keys, role=role) as trail:
        trail.resources.append(Resource("subject", subject_pseudonym(settings, subject)))
        yield trail


@contextmanager
def _authorised(
    settings: Settings,
    activity: Activity,
    subject: str,
    role: str,
    power: Power,
    ticket: str,
    code: str,
    keys: tuple[str, ...] = (),
) -> Iterator[Trail]:
    """The same for what needs a power, a ticket and a one-time code. A refusal is recorded, too."""
    from warehouse.privacy.authorisation import authorise, checked_ticket

    with _about(settings, activity, subject, role, keys) as trail:
        trail.resources.append(Resource("ticket", checked_ticket(ticket)))
        authorise(settings, Actor.current().name, role, power, code)
        yield trail
