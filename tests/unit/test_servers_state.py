"""The record of an embedded server."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from warehouse.servers.state import ServerState, load, save

STATE = ServerState(port=5432, pid=7, created=1700000000.25, secrets={"admin": "s3cret"})


def test_a_record_comes_back_as_it_was_written(tmp_path: Path) -> None:
    save(tmp_path / "state.json", STATE)
    assert load(tmp_path / "state.json") == STATE


def test_only_the_owner_can_read_it_also_after_a_replacement(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    save(path, STATE)
    path.chmod(0o644)
    save(path, STATE)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_what_an_interrupted_write_left_does_not_matter(tmp_path: Path) -> None:
    (tmp_path / "state.json.new").write_text('{"port": 1')
    save(tmp_path / "state.json", STATE)
    assert load(tmp_path / "state.json") == STATE
    assert [path.name for path in tmp_path.iterdir()] == ["state.json"]


@pytest.mark.parametrize("text", ["", '{"port": 1', "[]", '{"unknown": 1}', "\xff"])
def test_a_damaged_record_is_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "state.json"
    path.write_text(text, encoding="latin-1")
    assert load(path) is None


def test_no_record_is_none(tmp_path: Path) -> None:
    assert load(tmp_path / "state.json") is None


def test_passwords_are_not_shown() -> None:
    assert "s3cret" not in repr(STATE)
