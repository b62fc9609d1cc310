"""Backups: erased from like the warehouse, never restored when damaged, and nobody who was erased comes back."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.integration.landed_home import query
from tests.security.kills import killed
from tests.security.test_erasure import AMOUNTS, SUBJECT, Landed, check_gone, found, landed_copy
from warehouse import backup as backup_module
from warehouse.backup import back_up, restore
from warehouse.cli import context
from warehouse.cli.app import app
from warehouse.core.backups import as_home, backup_places
from warehouse.core.errors import ConfigurationError, WarehouseError
from warehouse.core.paths import Home
from warehouse.core.settings import Settings
from warehouse.erasure import ErasureIncomplete, erase, run
from warehouse.privacy.holds import add_hold, holds, release_hold
from warehouse.privacy.vault import UnknownSubject, subject_entries


@pytest.fixture
def landed(landed_reference: Settings, tmp_path: Path) -> Landed:
    return landed_copy(landed_reference, tmp_path / "home", backup_folder=tmp_path / "elsewhere")


def inside(landed: Landed, place: Path) -> Any:
    return as_home(landed.settings, place)


def test_a_backup_is_erased_from_and_can_be_restored(landed: Landed) -> None:
    place = back_up(landed.settings)
    assert not (place / "keys").exists(), "keys are kept apart"
    with inside(landed, place) as settings:
        assert subject_entries(settings, SUBJECT), "there is something to erase"
    receipt = erase(landed.settings, SUBJECT, "DSR-1")
    assert receipt.steps["backups"] == {"backups": 1}
    assert found(landed) == [], "the search reads the backups, too"
    with inside(landed, place) as settings:
        with pytest.raises(UnknownSubject):
            subject_entries(settings, SUBJECT)
        assert query(settings, AMOUNTS) == landed.amounts, "amounts stay"
    assert not (place / "keys").exists()
    assert restore(landed.settings, place.name).erased == 0
    check_gone(landed)


def test_restoring_what_no_erasure_could_reach_erases_again(landed: Landed, tmp_path: Path) -> None:
    place = back_up(landed.settings)
    kept = shutil.copytree(place, tmp_path / "tape" / place.name)
    erase(landed.settings, SUBJECT, "DSR-1")
    shutil.rmtree(place)
    shutil.copytree(kept, place)
    assert found(landed), "the copy from the tape still holds them"
    assert restore(landed.settings, place.name).erased == 1
    assert found(landed) == []
    check_gone(landed)
    assert not (landed.settings.warehouse_home / "before-restore").exists()


def test_killed_the_same_restore_goes_on(landed: Landed, tmp_path: Path) -> None:
    place = back_up(landed.settings)
    kept = shutil.copytree(place, tmp_path / "tape" / place.name)
    erase(landed.settings, SUBJECT, "DSR-1")
    shutil.rmtree(place)
    shutil.copytree(kept, place)
    with killed(backup_module, "_merge", "before"):
        restore(landed.settings, place.name)
    assert restore(landed.settings, place.name).erased == 1, "the ledger of what was there before is still known"
    assert found(landed) == []


def test_holds_are_those_of_today(landed: Landed, tmp_path: Path) -> None:
    """Who was held when the backup was made and has been erased since stays erased; who is held now stays held."""
    add_hold(landed.settings, SUBJECT, "aml", "AML-1")
    place = back_up(landed.settings)
    kept = shutil.copytree(place, tmp_path / "tape" / place.name)
    release_hold(landed.settings, SUBJECT, "aml", "AML-1")
    erase(landed.settings, SUBJECT, "DSR-1")
    add_hold(landed.settings, "CUSTOMER001", "tax", "TAX-1")
    shutil.rmtree(place)
    shutil.copytree(kept, place)
    assert restore(landed.settings, place.name).erased == 1
    assert [hold.subject for hold in holds(landed.settings)] == ["CUSTOMER001"]
    assert found(landed) == []


def test_a_backup_that_still_holds_them_fails_the_erasure(landed: Landed, monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted fault: an erasure that passes the backups over."""
    back_up(landed.settings)
    monkeypatch.setattr(run, "erase_from_backups", lambda *_: {"backups": 0})
    with pytest.raises(ErasureIncomplete, match="backup"):
        erase(landed.settings, SUBJECT, "DSR-1")
    assert subject_entries(landed.settings, SUBJECT), "the key survives"


def test_a_damaged_backup_is_neither_restored_nor_passed_over(landed: Landed) -> None:
    place = back_up(landed.settings)
    vault = place / "vault" / "vault.duckdb"
    vault.write_bytes(vault.read_bytes()[:-1])
    before = query(landed.settings, AMOUNTS)
    with pytest.raises(WarehouseError, match="not what it was"):
        restore(landed.settings, place.name)
    assert query(landed.settings, AMOUNTS) == before
    with pytest.raises(WarehouseError, match="not what it was"):
        erase(landed.settings, SUBJECT, "DSR-1")
    shutil.rmtree(place)
    erase(landed.settings, SUBJECT, "DSR-1")
    check_gone(landed)


def test_what_is_no_backup_is_refused(landed: Landed) -> None:
    for name in ("none", "..", "../home"):
        with pytest.raises(ConfigurationError, match="no backup"):
            restore(landed.settings, name)


def test_the_commands(landed: Landed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(context, "get_settings", lambda: landed.settings)
    for words in (["backup"], ["backups"]):
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 0, result.output
    (place,) = backup_places(landed.settings)
    assert place.stat().st_mode & 0o077 == 0
    result = CliRunner().invoke(app, ["restore", place.name])
    assert result.exit_code == 0, result.output
    log = Home.of(landed.settings).audit.read_text()
    assert '"backup"' in log
    assert '"restore"' in log
