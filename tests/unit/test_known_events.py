"""What landing counts as unknown is what the models do not understand: one list, in two places."""

from __future__ import annotations

import re

from ingestion.schema import tables
from warehouse.core.settings import PROJECT_ROOT


def test_the_pinned_event_types_are_those_of_the_models() -> None:
    text = (PROJECT_ROOT / "macros" / "modelling" / "vocabulary.sql").read_text()
    macro = text.partition("payment_event_types()")[2].partition("endmacro")[0]
    pinned = dict(tables("stream")["payments_transactions"].known)
    assert pinned["event_type"] == tuple(re.findall(r"'([a-z_.]+)'", macro))
    assert pinned["schema_version"] == ("1",)
