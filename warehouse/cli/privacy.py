"""`warehouse privacy …`: what is classified, what is found where, what is known of a person."""

from __future__ import annotations

from typing import Annotated

import typer

from warehouse.cli import console
from warehouse.core.settings import get_settings

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]


def add_to(privacy_app: typer.Typer) -> None:
    """Hang these commands below `warehouse privacy`."""
    privacy_app.command("classify")(classify)


def classify(json_: Json = False) -> None:
    """Every column has a class, and no classified value reaches readers unmasked; exit 10 otherwise."""
    with console.errors(json_):
        from warehouse.classify import classify_compiled, compile_models
        from warehouse.core.locks import writer_lock
        from warehouse.privacy.classification import ClassificationError

        settings = get_settings()
        with writer_lock(settings, "classify"), console.progress(quiet=json_) as progress:
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
