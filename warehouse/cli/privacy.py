"""`warehouse privacy …`: what is classified, what is found where, what is known of a person."""

from __future__ import annotations

from typing import Annotated

import typer

from warehouse.cli import console
from warehouse.cli.context import audited, ready_settings
from warehouse.privacy.ocsf import Activity

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]


def add_to(privacy_app: typer.Typer) -> None:
    """Hang these commands below `warehouse privacy`."""
    privacy_app.command("classify")(classify)
    privacy_app.command("scan")(scan)


def classify(json_: Json = False) -> None:
    """Every column has a class, and no classified value reaches readers unmasked; exit 10 otherwise."""
    with console.errors(json_):
        from warehouse.classify import classify_compiled, compile_models
        from warehouse.core.locks import writer_lock
        from warehouse.privacy.classification import ClassificationError

        settings = ready_settings()
        with (
            audited(settings, Activity.CHECK, keys=("warehouse",)),
            writer_lock(settings, "classify"),
            console.progress(quiet=json_) as progress,
        ):
            compile_models(settings, progress)
            result = classify_compiled(settings)
        if json_:
            console.print_json(result.to_dict())
        else:
            console.out.print(
                f"{result.columns:,} columns of {result.relations} relations, {result.coverage:.2f} % classified: "
                + ", ".join(f"{count:,} {name}" for name, count in result.classes.most_common())
            )
            console.out.print(
                f"{result.traced:,} published columns followed to their sources, {len(result.leaks)} show a classified "
                "value"
            )
            for relation, macros in sorted(result.breakers.items()):
                console.out.print(f"  {relation}: through {', '.join(macros)}")
            for finding in [*(f"{name} has no class" for name in result.unclassified), *result.leaks, *result.problems]:
                console.out.print(f"  FAILED: {finding}")
        if not result.passed:
            raise typer.Exit(ClassificationError.exit_code)


def scan(
    subject: Annotated[
        str | None, typer.Option(help="Search for everything the vault knows of this customer or merchant, and its id.")
    ] = None,
    json_: Json = False,
) -> None:
    """Search every byte and every column produced for personal data; exit 11 unless all was searched and none found."""
    with console.errors(json_):
        from warehouse.core.locks import writer_lock
        from warehouse.erasure import verify_receipts
        from warehouse.privacy.needles import subject_needles
        from warehouse.privacy.scan_home import FOUND, scan_home, tool_pages

        settings = ready_settings()
        with (
            audited(settings, Activity.SCAN, keys=("warehouse", "published", "lake", *(["vault"] if subject else []))),
            writer_lock(settings, "privacy scan"),
            console.progress(quiet=json_) as progress,
        ):
            needles = subject_needles(settings, subject).needles if subject is not None else []
            report = scan_home(settings, needles, baseline=tool_pages(), progress=progress)
        receipts = verify_receipts(settings, subject) if subject is not None else []
        if json_:
            console.print_json(report.to_dict() | {"receipts": [receipt.to_dict() for receipt in receipts]})
        else:
            for receipt in receipts:
                console.out.print(
                    f"receipt {receipt.id}, {receipt.status} {receipt.finished_at}: "
                    f"{sum(receipt.searched_for.values())} things of theirs searched for, {receipt.residual} found"
                )
            rows = [
                (name, report.files[name], report.bytes[name], report.columns[name], report.rows[name])
                for name in sorted({*report.files, *report.columns})
            ]
            console.print_table("searched", ("what", "files", "bytes", "columns", "rows"), rows)
            console.out.print(
                f"for card numbers, e-mail addresses and {report.needles} values in 8 encodings; "
                f"{report.too_short} values are too short to search for"
            )
            for name, why in report.left_out.items():
                console.out.print(f"left out: {name} ({why})")
            for name, why in report.unopened.items():
                console.out.print(f"NOT OPENED: {name} ({why})")
            for finding in report.findings:
                console.out.print(f"FOUND: {finding}")
            console.out.print(f"{len(report.findings)} findings, {len(report.unopened)} not opened")
        if not report.clean:
            raise typer.Exit(FOUND)
