"""`warehouse privacy …`: new keys."""

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


def rotate_key(
    name: Annotated[list[str], typer.Argument(help="warehouse, vault, published, lake, roles, or all of them: all.")],
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
