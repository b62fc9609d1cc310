"""A machine that cannot run an embedded server: the refresh says so and takes that source from file drops alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.conftest import MakeSettings
from warehouse import refresh as refresh_module
from warehouse import servers
from warehouse.core.endpoints import Endpoints
from warehouse.core.errors import LoadIncomplete
from warehouse.refresh import refresh


def test_a_missing_server_is_told_and_its_source_left_to_the_drops(
    make_settings: MakeSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    told: list[str] = []

    def up(_: object, *, on_missing: Any, **__: object) -> Endpoints:
        on_missing(servers.ServerMissing("kafka", "this machine cannot run Kafka", todo="set KAFKA_BOOTSTRAP"))
        return Endpoints("postgresql://x", "mongodb://x", None, "postgresql://a", "mongodb://a")

    def ingest(*_: object, sources: list[str], **__: object) -> None:
        read.extend(sources)
        raise LoadIncomplete("far enough")

    monkeypatch.setattr(refresh_module.servers, "up", up)
    monkeypatch.setattr(refresh_module, "ingest", ingest)
    with pytest.raises(LoadIncomplete, match="far enough"):
        refresh(make_settings(tmp_path / "home"), progress=told.append)
    assert read == ["oltp", "mongodb", "files"]
    assert told == [
        "sources: this machine cannot run Kafka; stream is read from file drops alone (set KAFKA_BOOTSTRAP)"
    ]
