"""`rpt_scheme_monitoring`: what card schemes count of a merchant each month, against their published thresholds."""

from __future__ import annotations

import csv
import datetime as dt
from collections import defaultdict
from dataclasses import dataclass, field
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path

import polars as pl

from tests.recompute import events, payments
from tests.recompute.amounts import converted, units
from tests.recompute.merchant_balance_daily import merchant_key
from tests.recompute.payments import CAPTURED, canonical, local_date
from tests.recompute.rates import REPORTING, Rates
from tests.recompute.sources import Row, Sources

GRAIN = ("merchant_key", "card_scheme", "business_month")
SEEDS = Path(__file__).resolve().parents[2] / "seeds"
"""The schemes' published thresholds and regions: reference lists, not models."""
PROGRAMS = {"VAMP": "visa", "ECM": "mastercard", "EFM": "mastercard"}
UNKNOWN = "unknown"


@dataclass
class Count:
    """What came together in one month."""

    sales: int = 0
    three_ds_sales: int = 0
    fraud_reports: int = 0
    disputes: int = 0
    fraud_disputes: int = 0
    sales_amount: list[int | None] = field(default_factory=list)
    case_amount: list[int | None] = field(default_factory=list)
    fraud_dispute_amount: list[int | None] = field(default_factory=list)


Key = tuple[str, str, dt.date]


def recompute(sources: Sources) -> list[Row]:
    """The report, with money as `Decimal`: a row for each month in which there were sales or cases."""
    counts = _counts(sources)
    regions = _regions(sources)
    thresholds = list(csv.DictReader((SEEDS / "scheme_thresholds.csv").open(encoding="utf-8")))
    rows = []
    for (merchant, scheme, month), count in counts.items():
        prior = counts.get((merchant, scheme, _prior(month)), Count()).sales
        region = regions.get((scheme, merchant), "DEFAULT")
        row: Row = {
            "merchant_key": merchant,
            "card_scheme": scheme,
            "business_month": month,
            "region": region,
            "reporting_currency_code": REPORTING,
            "sales": count.sales,
            "prior_month_sales": prior,
            "three_ds_sales": count.three_ds_sales,
            "fraud_reports": count.fraud_reports,
            "disputes": count.disputes,
            "fraud_disputes": count.fraud_disputes,
            "sales_amount_reporting": _total(count.sales_amount),
            "case_amount_reporting": _total(count.case_amount),
            "fraud_dispute_amount_reporting": _total(count.fraud_dispute_amount),
        }
        fractions = {
            "VAMP": (count.fraud_reports + count.disputes, count.sales),
            "ECM": (count.disputes, prior),
            "EFM": (count.fraud_disputes, prior),
        }
        for program, (numerator, denominator) in fractions.items():
            tiers = [
                tier
                for tier in thresholds
                if tier["program"] == program
                and tier["scheme"] == scheme
                and tier["region"] == region
                and tier["valid_from"] <= month.isoformat() <= (tier["valid_to"] or "9999-12-31")
            ]
            name = program.lower()
            ratio = Decimal(numerator) * 10_000 / denominator if denominator else None
            row |= {
                f"{name}_numerator": numerator,
                f"{name}_denominator": denominator,
                f"{name}_ratio_bps": None if ratio is None else ratio.quantize(Decimal("0.0001"), ROUND_HALF_UP),
                f"{name}_threshold_bps": min((int(tier["ratio_from_bps"]) for tier in tiers), default=None),
                f"{name}_formula_version": tiers[0]["formula_version"] if tiers else None,
                f"{name}_status": _status(tiers, numerator, ratio, prior),
            }
        ecm = row["ecm_ratio_bps"]
        row["ecm_ratio_whole_bps"] = None if ecm is None else int(ecm.quantize(Decimal(1), ROUND_HALF_UP))
        rows.append(row)
    return rows


def _counts(sources: Sources) -> dict[Key, Count]:
    rates = Rates(sources.documents["currency_exchange_rates"])
    told = events.deduplicated(sources.messages).sort("occurred_at", "event_id")
    methods = sources.tables["payment_method"]
    schemes = {row["payment_method_id"]: row["card_brand"] for row in methods if row["card_brand"]}
    other = {row["payment_method_id"] for row in methods if not row["card_brand"]}
    zones = payments.Zones(sources.merchant_readings)
    captures: dict[tuple[str, str], dt.datetime] = {}
    proofs: dict[tuple[str, str], str] = {}
    for event in told.filter(pl.col("transaction_id").is_not_null()).iter_rows(named=True):
        owner = (event["source_system"], event["transaction_id"])
        if event["event_type"] == "payment.captured":
            captures.setdefault(owner, event["occurred_at"])
        if event["three_ds"] is not None:
            proofs[owner] = event["three_ds"]
    counts: defaultdict[Key, Count] = defaultdict(Count)
    # a bank transfer is no card sale, a wallet is; a document names no method, and its card is unknown
    sold = {
        (row["source_system"], row["transaction_id"]): row
        for row in payments.unified(sources).iter_rows(named=True)
        if row["payment_method_id"] not in other
    }
    for owner, sale in sold.items():
        captured_at = captures.get(owner) or (sale["created_at"] if sale["status"] in CAPTURED else None)
        if captured_at is None:
            continue
        zone = zones.of(sale["merchant_id"], sale["created_at"]) or sale["zone"]
        count = counts[_key(sale, schemes, local_date(captured_at, zone))]
        count.sales += 1
        count.three_ds_sales += proofs.get(owner) == "authenticated"
        count.sales_amount.append(converted(sale["amount"], rates.on(sale["currency"], sale["business_date"])))
    seen: set[tuple[str, ...]] = set()
    for event in told.filter(pl.col("event_type").is_in(["fraud.reported", "dispute.opened"])).iter_rows(named=True):
        owner = (event["source_system"], event["transaction_id"])
        case = (*owner, event["event_type"], event["dispute_id"] or event["event_id"])
        if owner not in sold or case in seen:
            continue
        seen.add(case)
        sale = sold[owner]
        zone = zones.of(sale["merchant_id"], event["occurred_at"])
        count = counts[_key(sale, schemes, local_date(event["occurred_at"], zone))]
        amount = converted(event["amount"], rates.on(sale["currency"], sale["business_date"]))
        count.case_amount.append(amount)
        if event["event_type"] == "fraud.reported":
            count.fraud_reports += 1
            continue
        count.disputes += 1
        if event["is_fraud"]:
            count.fraud_disputes += 1
            count.fraud_dispute_amount.append(amount)
    return dict(counts)


def _key(sale: Row, schemes: dict[str, str], day: dt.date) -> Key:
    scheme = schemes.get(sale["payment_method_id"], UNKNOWN)
    return merchant_key(sale["merchant_id"]), scheme, day.replace(day=1)


def _regions(sources: Sources) -> dict[tuple[str, str], str]:
    """Region of each merchant in the programs of each scheme, by the country in which it is today."""
    country = {row["location_id"]: row["country_code"] for row in sources.tables["location"]}
    found: dict[tuple[str, str], str] = {}
    for row in csv.DictReader((SEEDS / "scheme_regions.csv").open(encoding="utf-8")):
        for merchant in sources.tables["merchant"]:
            if country.get(merchant["location_id"]) == row["country_code"]:
                found[row["scheme"], merchant_key(canonical(merchant["merchant_id"]))] = row["region"]
    return found


def _status(tiers: list[dict[str, str]], numerator: int, ratio: Decimal | None, prior: int) -> str:
    """The worst tier reached. Tiers that ask for an amount in dollars need more cases than a small company has."""
    reached = [
        tier
        for tier in tiers
        if ratio is not None
        and ratio >= int(tier["ratio_from_bps"])
        and numerator >= int(tier["count_from"] or 0)
        and prior >= int(tier["sales_from"] or 0)
    ]
    assert not any(tier["amount_above_usd"] for tier in reached), "amounts in dollars are not recomputed"
    if not tiers:
        return "not_in_force"
    return max(reached, key=lambda tier: int(tier["severity"]))["tier"] if reached else "within"


def _total(amounts: list[int | None]) -> Decimal:
    return units(sum(amount for amount in amounts if amount is not None))


def _prior(month: dt.date) -> dt.date:
    return (month - dt.timedelta(days=1)).replace(day=1)
