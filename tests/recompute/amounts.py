"""Exact money: whole ten-thousandths of a unit, and rates in whole quintillionths."""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal, InvalidOperation, localcontext
from typing import Any

MONEY = Decimal("0.0001")
RATE = Decimal("1e-18")
LARGEST = Decimal(10) ** 14
"""Money is kept with eighteen digits, four of them after the point."""


def money(value: Any) -> int | None:
    """Ten-thousandths, half away from zero; None for what is no amount (words, objects, nothing, NaN, too large)."""
    if value is None or isinstance(value, bool | dict | list):
        return None
    try:
        number = Decimal(str(value).strip())
    except InvalidOperation:
        return None
    if not number.is_finite() or abs(number) >= LARGEST:
        return None
    return int(number.quantize(MONEY, rounding=ROUND_HALF_UP).scaleb(4))


def units(amount: int) -> Decimal:
    """Ten-thousandths as a decimal number of units."""
    return Decimal(amount).scaleb(-4)


def quotient(numerator: Decimal, denominator: Decimal) -> Decimal:
    """A rate with eighteen decimals, half up."""
    with localcontext() as context:
        context.prec = 60
        return (numerator / denominator).quantize(RATE, rounding=ROUND_HALF_UP)


def converted(amount: int | None, rate: Decimal | None) -> int | None:
    """The exact product, rounded once to the ten-thousandth, half away from zero."""
    if amount is None or rate is None:
        return None
    with localcontext() as context:
        context.prec = 60
        return int((Decimal(amount) * rate).quantize(Decimal(1), rounding=ROUND_HALF_UP))


def minor(amount: int | None, exponent: int | None) -> int | None:
    """Ten-thousandths in the smallest unit of a currency, half away from zero; None without an exponent."""
    if amount is None or exponent is None:
        return None
    return int(Decimal(amount).scaleb(exponent - 4).quantize(Decimal(1), rounding=ROUND_HALF_UP))
