"""A company whose sources hold every canary, for the tests that need a warehouse that was built."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conftest import MakeSettings
from tests.security.canary_plants import SOURCES, plant_everywhere
from warehouse import servers, simulation
from warehouse.core.settings import Settings
from warehouse.refresh import refresh


@pytest.fixture(scope="session")
def planted_company(tmp_path_factory: pytest.TempPathFactory, make_settings: MakeSettings) -> Iterator[Settings]:
    """A small company whose sources hold every canary, refreshed from nothing: to be copied, never changed."""
    settings = make_settings(
        tmp_path_factory.mktemp("canaries"),
        dataset="company",
        sim_transactions=1_500,
        sim_days=30,
        drops_settle_seconds=0,
    )
    try:
        endpoints = servers.up(settings)
        simulation.fill(settings, endpoints)
        forms = plant_everywhere(settings, endpoints)
        assert forms.keys() == set(SOURCES)
        assert all(forms.values())
        refresh(settings, full=True)
        yield settings
    except servers.ServerMissing as error:
        pytest.skip(error.what)
    finally:
        servers.down(settings)
