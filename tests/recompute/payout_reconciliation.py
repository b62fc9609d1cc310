"""`rpt_payout_reconciliation`: what each payout announced against the movements that it lists."""

from __future__ import annotations

from tests.recompute.amounts import minor, units
from tests.recompute.merchant_balance_daily import merchant_key
from tests.recompute.movements import Ledger, Movement, Payout, exponents
from tests.recompute.payments import canonical
from tests.recompute.sources import Row, Sources

GRAIN = ("payout_id",)


def recompute(sources: Sources) -> list[Row]:
    """The report, with money as `Decimal`."""
    ledger = Ledger(sources)
    known: dict[str | None, Movement] = {found.movement_id: found for found in ledger.movements if found.movement_id}
    digits = exponents(sources)
    names = {canonical(row["merchant_id"]): row["trade_name"] for row in sources.tables["merchant"]}
    paying: dict[str, list[Payout]] = {}
    for payout in ledger.payouts:
        for movement in payout.movement_ids:
            paying.setdefault(movement, []).append(payout)
    return [_row(payout, known, paying, digits, names.get(payout.merchant_id)) for payout in ledger.payouts]


def _row(
    payout: Payout,
    known: dict[str | None, Movement],
    paying: dict[str, list[Payout]],
    digits: dict[str, int],
    trade_name: str | None,
) -> Row:
    listed = [known[movement] for movement in payout.movement_ids if movement in known]
    unknown = len(payout.movement_ids) - len(listed)
    total = sum(found.amount for found in listed if found.currency == payout.currency)
    difference = None if payout.amount is None else payout.amount - total
    exponent = digits.get(payout.currency or "")
    if difference is None:
        status = "not_comparable"
    elif unknown:
        status = "unknown_movements"
    else:
        status = "reconciled" if difference == 0 else "difference"
    day = payout.business_date
    return {
        "payout_id": payout.payout_id,
        "merchant_key": merchant_key(payout.merchant_id),
        "merchant_id": payout.merchant_id,
        "trade_name": trade_name,
        "source_system": payout.source_system,
        "payout_status": "failed" if payout.failed_at else "paid",
        "failure_reason": payout.failure_reason,
        "replaced_by_payout_id": _replacement(payout, paying),
        "currency_code": payout.currency,
        "reconciliation_status": status,
        "currency_exponent": exponent,
        "movements_count": len(payout.movement_ids),
        "unknown_movements_count": unknown,
        "foreign_currency_movements_count": sum(found.currency != payout.currency for found in listed),
        "foreign_merchant_movements_count": sum(
            found.merchant_id is not None and found.merchant_id != payout.merchant_id for found in listed
        ),
        "announced_amount": None if payout.amount is None else units(payout.amount),
        "movements_amount": units(total),
        "difference_amount": None if difference is None else units(difference),
        "announced_amount_minor": minor(payout.amount, exponent),
        "movements_amount_minor": minor(total, exponent),
        "difference_minor": minor(difference, exponent),
        "is_successful": payout.failed_at is None,
        "is_debit": payout.amount is not None and payout.amount < 0,
        "has_difference": status == "not_comparable" or bool(difference),
        "has_unknown_movements": unknown > 0,
        "arrival_date": payout.arrival_date,
        "business_date": day,
        "business_date_key": day.year * 10_000 + day.month * 100 + day.day,
        "event_at_utc": payout.paid_at,
        "reversed_at": payout.failed_at,
    }


def _replacement(payout: Payout, paying: dict[str, list[Payout]]) -> str | None:
    """The successful payout that paid the movements of a failed one again."""
    if payout.failed_at is None:
        return None
    again = {
        (found.paid_at, found.payout_id)
        for movement in payout.movement_ids
        for found in paying[movement]
        if found.failed_at is None and found.paid_at > payout.paid_at
    }
    return min(again)[1] if again else None
