"""What real source systems do to a pipeline, and how often: the one place where these rates are declared.

Shares are of the thing named. `*_EVERY` picks one in so many by number, so that even a small company has some.
"""

from __future__ import annotations

SECOND = 1_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR
"""Milliseconds."""

# The stream
REDELIVERED_SHARE = 0.005
"""Events sent again under the same event_id, at another offset, up to REDELIVERY_WITHIN later."""
REDELIVERY_WITHIN = 10 * MINUTE
OUT_OF_ORDER_SHARE = 0.01
"""Events that arrive up to OUT_OF_ORDER_WITHIN late, behind later events of the same payment."""
OUT_OF_ORDER_WITHIN = 6 * HOUR
LATEST_DISPUTE = 120 * DAY
"""After capture; what falls behind the simulated present is sent by a later advance."""
LONGEST_DECISION = 60 * DAY
LONGEST_STORY = LATEST_DISPUTE + LONGEST_DECISION + 15 * DAY
"""No payment changes later than this after its creation."""

# Rows and documents
LATE_COMMIT_WINDOW = 5 * MINUTE
"""Stays below the default cursor lag of the ingestion (600 s): what is later than the lag is lost by design."""
LATE_COMMIT_EVERY = 3
"""Of the payments created within LATE_COMMIT_WINDOW before the present: their events are out, their rows
are committed by the next advance, behind the cursor."""
BEHIND_CURSOR_EVERY = 150
"""Devices touched, at each advance, with an updated_at that lies BEHIND_CURSOR_BY before the old present."""
BEHIND_CURSOR_BY = 2 * MINUTE
NIGHTLY_CAPTURE_SHARE = 0.3
"""Merchants that capture once a night, in one statement: all those rows share one updated_at."""
SPARE_CYCLE = 30 * DAY
SPARE_ABSENCE = 3 * DAY
"""Devices and payment methods that no payment uses vanish for SPARE_ABSENCE in every SPARE_CYCLE and come back."""
FEEDBACK_WITHDRAWN_EVERY = 10
"""Feedback documents deleted FEEDBACK_LIFETIME after they were written; every second one comes back."""
FEEDBACK_LIFETIME = 20 * DAY
FEEDBACK_ABSENCE = 2 * DAY
EARLY_CUSTOMERS_A_DAY = 8
"""Of the last payments of each day, those in MongoDB belong to the customer who reaches PostgreSQL next."""
DUPLICATE_DOCUMENT_EVERY = 100
"""Feedback and interaction documents stored twice under two `_id`s by a retrying client."""

# Types and text
AMOUNT_DECIMAL_SHARE = 0.25
AMOUNT_TEXT_EVERY = 1_500
"""MongoDB amounts stored as a numeric string; the rest are doubles, Decimal128 and, when whole, sometimes int."""
AMOUNT_INTEGER_SHARE = 0.2
CVV_EVERY = 1_501
"""Documents, and attempts on the stream, that carry a `cvv` nobody may store."""
LOG_CVV_EVERY = 40
"""Error logs whose context carries one."""
NUL_EVERY = 50
"""Feedback texts with a NUL character."""
NOTE_EVERY = 1_301
"""Attempts on the stream with a note that has a NUL character in it."""
EMOJI_SHARE = 0.10
PERSONAL_TEXT_SHARE = 0.04
"""Feedback with a card number, an e-mail address or a phone number in it."""
HUGE_COMMENT_BYTES = 1_000_000
"""One comment of this length, in the first feedback of the company."""
STALE_RATE_MERCHANT_EVERY = 97
"""Merchants with a product priced in a currency the ECB stopped quoting in March 2022 (RUB)."""
