"""Where backups lie, and how one is opened: as a home of its own, under the keys of the installation it was made from.

A backup is a folder of what is encrypted anyway and of signed records; keys are never in it. Each says what it holds,
file by file, so that a damaged one is not restored.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from warehouse.core.errors import WarehouseError
from warehouse.core.paths import Home
from warehouse.core.settings import Settings

CONTENTS = "contents.json"
PART = ".part"
"""Ends the name of a backup that is not complete."""
ERASING = "erasing"
"""There while an erasure is at work in a backup."""
_LINKED = ("keys", "extensions")
_PASSING = frozenset({CONTENTS, ERASING, *_LINKED, "spill", "audit", "audit-head", "warehouse.lock"})
"""What is no part of a backup, though it may stand in its folder for a while."""


def backup_root(settings: Settings) -> Path:
    """The folder of all backups."""
    return settings.backup_folder or Home.of(settings).root / "backups"


def backup_places(settings: Settings) -> list[Path]:
    """Every backup, oldest first; those that a kill left incomplete, too: they hold rows all the same."""
    root = backup_root(settings)
    return sorted(path for path in root.iterdir() if path.is_dir()) if root.is_dir() else []


@contextmanager
def as_home(settings: Settings, place: Path) -> Iterator[Settings]:
    """Settings by which a backup is worked on as if it were the home. Keys are lent to it meanwhile."""
    links = [place / name for name in _LINKED]
    try:
        for link in links:
            link.unlink(missing_ok=True)
            link.symlink_to(Home.of(settings).root.resolve() / link.name, target_is_directory=True)
        yield settings.model_copy(update={"warehouse_home": place, "lake_uri": None, "backup_folder": place / "none"})
    finally:
        for link in links:
            link.unlink(missing_ok=True)


def write_contents(place: Path) -> None:
    """Note the digest of every file of a backup."""
    new = place / f"{CONTENTS}{PART}"
    new.write_text(json.dumps(_digests(place), indent=0), encoding="utf-8")
    new.chmod(0o600)
    new.replace(place / CONTENTS)


def verify_contents(place: Path) -> None:
    """Raise WarehouseError unless a backup holds what it held when it was made, or last erased from."""
    try:
        noted = json.loads((place / CONTENTS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        noted = None
    if noted is None or noted != _digests(place):
        raise WarehouseError(
            f"the backup {place.name} is not what it was, or is incomplete",
            kept="the warehouse as it is; nothing was restored",
            todo="restore another backup (`warehouse backups`)",
        )


def _digests(place: Path) -> dict[str, str]:
    found = {}
    for path in sorted(place.rglob("*")):
        name = path.relative_to(place)
        if path.is_file() and not path.is_symlink() and name.parts[0] not in _PASSING and not name.name.endswith(PART):
            with path.open("rb") as file:
                found[name.as_posix()] = hashlib.file_digest(file, "sha256").hexdigest()
    return found
