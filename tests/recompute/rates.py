"""Exchange rates: what was published on or before a day, while it is fresh."""

from __future__ import annotations

import bisect
import datetime as dt
from decimal import Decimal

from tests.recompute.amounts import quotient
from tests.recompute.sources import Row

REPORTING = "EUR"
OLDEST = 7
"""Days after which a published rate is stale."""


class Rates:
    """Rates to the reporting currency, from the documents of `currency_exchange_rates`."""

    def __init__(self, documents: list[Row]) -> None:
        quotes: dict[str, dict[dt.date, Decimal]] = {}
        for document in documents:
            base, day = document["base"], document["date"].date()
            table = {base: Decimal(1)} | {code: Decimal(str(rate)) for code, rate in document["rates"].items()}
            if REPORTING not in table:
                continue
            for code, rate in table.items():
                if rate > 0:
                    quotes.setdefault(code, {})[day] = quotient(table[REPORTING], rate)
        self._rates = quotes
        self._days = {code: sorted(found) for code, found in quotes.items()}

    def on(self, currency: str | None, day: dt.date) -> Decimal | None:
        """Reporting currency for one unit: the last published on or before `day`, at most OLDEST days old."""
        if currency == REPORTING:
            return Decimal(1)
        days = self._days.get(currency or "", [])
        place = bisect.bisect_right(days, day)
        if not place or (day - days[place - 1]).days > OLDEST:
            return None
        return self._rates[currency or ""][days[place - 1]]
