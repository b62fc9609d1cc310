"""Who commits fraud, how it looks, and what the risk engine makes of it.

Patterns are laid over the payment numbers, so that they come in bursts as they do in life:

- card testing: within one stretch of 64 payments, twenty tiny ones in a few minutes, one shop, one device;
- compromised terminal: in each epoch of 1,024, eight cards are skimmed at one merchant, four are used an epoch later;
- ring: four payments per epoch by three customers who share one device;
- stolen cards: single payments whose look drifts, from few and large at night to many and ordinary.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from warehouse.simulation.draws import Booleans, Floats, Integers
from warehouse.simulation.people import SLOTS
from warehouse.simulation.world import World

LEGITIMATE, STOLEN_CARD, CARD_TESTING, SKIMMED_CARD, RING = range(5)

RULES = [
    "velocity_card",
    "new_device",
    "ip_country_mismatch",
    "amount_above_usual",
    "known_bad_device",
    "shared_device",
]
_MAIN_RULE = np.array([3, 2, 0, 3, 5])
"""Rule most likely to fire, by kind of fraud."""

BLOCK_SCORE = 0.75
REVIEW_SCORE = 0.50

STRETCH = 64
_TEST_PAYMENTS = 20
_TESTED_STRETCHES = 0.02
_EPOCH = 1_024
_SKIM_STEP, _SKIM_AT = 128, 7
_USE_STEP, _USE_AT = 256, 11
_RING_STEP, _RING_AT = 256, 3
_RING_SIZE = 3
_STOLEN_SHARE = 0.004
_DRIFT_DAYS = 45.0
"""After this many days half of the stolen-card fraud has changed its look."""


@dataclass
class Choice:
    """Who pays whom with what: filled for ordinary payments, then bent by the patterns. Shapes (n,)."""

    kind: Integers
    customer: Integers
    merchant: Integers
    device: Integers
    away: Booleans
    """Paid from far away from the customer's home."""
    amount_factor: Floats
    drift: Floats
    """0: old look of fraud, 1: new look."""


def bend(world: World, numbers: Integers, day: Integers, choice: Choice) -> None:
    """Lay the patterns over ordinary choices, in place."""
    draws = world.draws("fraud", numbers)
    settled = world.customers.initial
    shops = world.merchants.initial
    choice.drift[:] = 1.0 / (1.0 + np.exp(-(day - _DRIFT_DAYS) / 12.0))

    stolen = draws.below("stolen", _STOLEN_SHARE * (1 + choice.drift))
    new_look = draws.below("new look", choice.drift)
    attacker = world.draws("attacker", numbers // 256).between("customer", 0, settled)
    choice.kind[stolen] = STOLEN_CARD
    choice.device[stolen & ~new_look] = attacker[stolen & ~new_look] * SLOTS
    choice.away |= stolen & ~new_look
    factor = np.where(new_look, 1.2, 4.0) * (0.6 + draws.uniform("factor"))
    choice.amount_factor[stolen] = factor[stolen]

    epoch = numbers // _EPOCH
    skim = numbers % _SKIM_STEP == _SKIM_AT
    skim_index = numbers % _EPOCH // _SKIM_STEP
    use = (numbers % _USE_STEP == _USE_AT) & (epoch > 0)
    use_index = numbers % _EPOCH // _USE_STEP
    for chosen, source, index in ((skim, epoch, skim_index), (use, epoch - 1, use_index)):
        victim = world.draws("victim", source * 8 + index).between("customer", 0, settled)
        choice.customer[chosen] = victim[chosen]
        choice.device[chosen] = victim[chosen] * SLOTS
    terminal = world.draws("terminal", epoch).between("merchant", 0, shops)
    choice.merchant[skim] = terminal[skim]
    choice.kind[skim] = LEGITIMATE
    choice.kind[use] = SKIMMED_CARD
    choice.away[use] = True
    choice.amount_factor[use] = 2.5

    ring = numbers % _RING_STEP == _RING_AT
    member = world.draws("ring", epoch * _RING_SIZE + numbers // _RING_STEP % _RING_SIZE).between(
        "customer", 0, settled
    )
    leader = world.draws("ring", epoch * _RING_SIZE).between("customer", 0, settled)
    choice.kind[ring] = RING
    choice.customer[ring] = member[ring]
    choice.device[ring] = leader[ring] * SLOTS
    choice.amount_factor[ring] = 1.5

    testing = is_card_testing(world, numbers)
    stretch = world.draws("stretch", numbers // STRETCH)
    choice.kind[testing] = CARD_TESTING
    choice.customer[testing] = draws.between("tested card", 0, settled)[testing]
    choice.merchant[testing] = stretch.between("merchant", 0, shops)[testing]
    choice.device[testing] = stretch.between("device", 0, settled)[testing] * SLOTS
    choice.away[testing] = True


def is_card_testing(world: World, numbers: Integers) -> Booleans:
    """Whether each payment belongs to a burst of tested cards."""
    stretch = world.draws("stretch", numbers // STRETCH)
    return stretch.below("tested", _TESTED_STRETCHES) & (numbers % STRETCH < _TEST_PAYMENTS)


def scores(world: World, numbers: Integers, kind: Integers, drift: Floats) -> Floats:
    """The engine's score in [0, 1], two decimals: blind to some fraud, more so once its look has changed."""
    draws = world.draws("fraud", numbers)
    u = draws.uniform("score")
    harmless = 0.01 + 0.45 * u**5
    false_alarm = draws.below("false alarm", 0.004)
    harmless = np.where(false_alarm, 0.5 + 0.45 * u, harmless)
    fooled = draws.below("fooled", drift * 0.7)
    seen = 0.35 + 0.64 * np.where(fooled, u**2.5, np.sqrt(u))
    score: Floats = np.where(kind == LEGITIMATE, harmless, seen)
    return np.round(score, 2)


def main_rule(world: World, numbers: Integers, kind: Integers) -> Integers:
    """Index into RULES of the rule that weighed most."""
    draws = world.draws("fraud", numbers)
    other = draws.between("other rule", 0, len(RULES))
    return np.where(draws.below("usual rule", 0.75) & (kind != LEGITIMATE), _MAIN_RULE[kind], other)
