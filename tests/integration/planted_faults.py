"""A fault for each numbered invariant of the warehouse: bad data that its test has to see.

Statements run inside a transaction that is rolled back, on a copy of a built warehouse. Each touches at least one row
of any warehouse that holds sales; `one_row` picks it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PlantedFault:
    """One way to break an invariant, and the singular test that must notice."""

    test: str
    """Name of the dbt test."""
    fault: str
    """What is wrong with the data afterwards."""
    statement: str
    """SQL that plants it."""

    @property
    def invariant(self) -> int:
        """The invariant's number in the design, from the test's name."""
        return int(self.test.split("_")[1])


def one_row(table: str, condition: str = "true") -> str:
    """A where clause for the first row of `table` that meets `condition`."""
    return f"where rowid = (select min(rowid) from {table} where {condition})"


SALES = "public.fct_sales"
RATES = "public.fct_exchange_rate"
MILESTONES = "intermediate.int_transaction_milestones"
MANIFEST = "raw_ops.load_manifest"
DISPUTE_EVENTS = "public.fct_dispute_event"
LEDGER = "public.fct_balance_movement"
BALANCES = "public.fct_merchant_balance_daily"
SETTLEMENTS = "public.fct_settlement"
PAYOUTS = "intermediate.int_payouts"
PAYOUT_REPORT = "public.rpt_payout_reconciliation"

COMPLETED = one_row(MANIFEST, "status = 'completed'")
EXACT_RATE = one_row(RATES, "rate_status = 'exact'")
WITH_PRODUCT = one_row(SALES, "product_key not in ('-1', '-2', '-3')")

ACCOUNTED = "invariant_02_source_is_accepted_refused_or_duplicate"
TOTALS = "invariant_03_staged_total_is_fact_total"
UNKNOWN = "invariant_05_unknown_members_are_rare"
VERSIONS = "invariant_07_facts_join_the_version_valid_at_event_time"
NET = "invariant_08_gross_less_fee_is_net"
TAX = "invariant_09_amount_excluding_tax_plus_tax_is_gross"
MINOR_UNIT = "invariant_10_amounts_fit_the_minor_unit"
REFUNDS = "invariant_11_refunds_do_not_exceed_captures"
CAPTURES = "invariant_12_captures_do_not_exceed_authorizations"
DISPUTES = "invariant_13_disputed_exposure_within_captures"
WON = "invariant_14_won_disputes_net_to_zero"
INQUIRIES = "invariant_15_inquiries_move_no_money"
LEGS = "invariant_16_ledger_legs_sum_to_zero"
BALANCE = "invariant_17_opening_and_movements_make_closing"
PAYOUT_SUM = "invariant_18_payouts_are_minus_their_movements"
PAID_ONCE = "invariant_19_movements_are_paid_once"
REVERSAL = "invariant_20_failed_payouts_reverse"
RATE = "invariant_21_rates_are_known_fresh_and_honest"
CONVERSION = "invariant_22_conversion_drops_no_row"
ORDER = "invariant_23_statuses_and_milestones_are_in_order"
PERSONAL = "invariant_25_no_personal_data_in_published_text"

FAULTS = (
    PlantedFault(
        ACCOUNTED,
        "a load lost a row between source and landing",
        f"update {MANIFEST} set landed_rows = landed_rows - 1 {COMPLETED}",
    ),
    PlantedFault(
        ACCOUNTED,
        "the quarantine holds a row that no load counted",
        f"""
        insert into raw_ops.quarantine by name
        select load_id, source, table_name, 'planted' as position, 'planted' as reason
        from {MANIFEST} {COMPLETED}
        """,
    ),
    PlantedFault(
        ACCOUNTED,
        "a staged payment is missing after the two databases were unified",
        f"delete from intermediate.int_transactions_unified {one_row('intermediate.int_transactions_unified')}",
    ),
    PlantedFault(
        ACCOUNTED,
        "a staged event is missing after redeliveries were removed",
        f"delete from intermediate.int_payment_events_deduped {one_row('intermediate.int_payment_events_deduped')}",
    ),
    PlantedFault(
        TOTALS,
        "one amount is off by the smallest step",
        f"update {SALES} set amount = amount + 0.0001 {one_row(SALES, 'amount is not null')}",
    ),
    PlantedFault(
        TOTALS,
        "an amount stands under another currency",
        f"update {SALES} set currency_code = 'XTS' {one_row(SALES, 'amount is not null')}",
    ),
    PlantedFault(
        TOTALS,
        "a payment is in the facts twice",
        f"insert into {SALES} select * from {SALES} {one_row(SALES)}",
    ),
    PlantedFault(UNKNOWN, "no payment finds its customer", f"update {SALES} set customer_key = '-1'"),
    PlantedFault(UNKNOWN, "no payment finds its business date", f"update {SALES} set business_date_key = -1"),
    PlantedFault(UNKNOWN, "no rate finds its currency", f"update {RATES} set currency_key = '-1'"),
    PlantedFault(
        VERSIONS,
        "a sale points at a version of another product",
        f"""
        update {SALES} set product_version_key = (
            select min(product_version_key) from public.dim_product_history
            where product_key not in ('-1', '-2', '-3') and product_key != fct_sales.product_key
        )
        {WITH_PRODUCT}
        """,
    ),
    PlantedFault(
        VERSIONS,
        "a sale happened after its merchant's version had ended",
        f"""
        update public.dim_merchant_history set valid_to = timestamptz '1900-01-02 00:00:00+00'
        where merchant_version_key = (
            select min(merchant_version_key) from {SALES} where merchant_key not in ('-1', '-2', '-3')
        )
        """,
    ),
    PlantedFault(
        VERSIONS,
        "a payment in fct_fraud happened before its customer's version began",
        """
        update public.fct_fraud set event_at_utc = timestamptz '1899-12-31 00:00:00+00'
        where customer_key not in ('-1', '-2', '-3')
        """,
    ),
    PlantedFault(
        NET,
        "a net amount is off by the smallest step",
        f"update {SALES} set net_amount = net_amount + 0.0001 {one_row(SALES, 'net_amount is not null')}",
    ),
    PlantedFault(
        NET,
        "a settlement fee was left out of net",
        f"""
        update {SALES} set fee_amount_settlement = fee_amount_settlement + 0.01
        {one_row(SALES, "net_amount_settlement is not null")}
        """,
    ),
    PlantedFault(
        NET,
        "net in reporting currency is missing where gross is known",
        f"update {SALES} set net_amount_reporting = null {one_row(SALES, 'gross_amount_reporting is not null')}",
    ),
    PlantedFault(
        TAX,
        "a tax was added after the amount was split",
        f"update {SALES} set tax = tax + 0.01 {one_row(SALES, 'tax is not null and amount is not null')}",
    ),
    PlantedFault(
        TAX,
        "a known tax was not taken off",
        f"update {SALES} set amount_excluding_tax = null {one_row(SALES, 'tax is not null and amount is not null')}",
    ),
    PlantedFault(
        MINOR_UNIT,
        "a tenth of a cent",
        f"update {SALES} set amount = amount + 0.001 {one_row(SALES, 'currency_exponent = 2 and amount is not null')}",
    ),
    PlantedFault(
        MINOR_UNIT,
        "cents in a currency that has none",
        f"update {SALES} set currency_exponent = 0, tax = 1.25 {one_row(SALES, 'currency_exponent = 2')}",
    ),
    PlantedFault(
        REFUNDS,
        "more was refunded than was captured",
        f"""
        update {MILESTONES} set refunded_amount = captured_amount + 0.01
        {one_row(MILESTONES, "captured_amount is not null")}
        """,
    ),
    PlantedFault(
        REFUNDS,
        "more was refunded than a payment without a capture event is worth",
        f"""
        update {MILESTONES} set captured_amount = null, refunded_amount = 99999999
        {one_row(MILESTONES, "captured_amount is not null")}
        """,
    ),
    PlantedFault(
        CAPTURES,
        "more was captured than was authorized",
        f"""
        update {MILESTONES} set captured_amount = authorized_amount + 0.01
        {one_row(MILESTONES, "authorized_amount is not null")}
        """,
    ),
    PlantedFault(
        DISPUTES,
        "more is in dispute than was captured",
        f"""
        update {MILESTONES} set disputed_amount = captured_amount + 0.01
        {one_row(MILESTONES, "captured_amount is not null")}
        """,
    ),
    PlantedFault(
        WON,
        "a dispute is won and nothing came back",
        f"""
        update {DISPUTE_EVENTS} set is_dispute_won = true
        where dispute_status not in ('won', 'inquiry')
        """,
    ),
    PlantedFault(
        WON,
        "the ledger does not know of a win",
        """
        update intermediate.int_disputes set is_won = true
        where opened_event_id is not null and won_event_id is null
        """,
    ),
    PlantedFault(
        INQUIRIES,
        "an inquiry took the amount it asked about",
        f"""
        update {DISPUTE_EVENTS} set event_type = 'dispute.inquiry'
        {one_row(DISPUTE_EVENTS, "event_type = 'dispute.opened' and signed_amount != 0")}
        """,
    ),
    PlantedFault(
        INQUIRIES,
        "a loss is in the ledger",
        f"""
        update {DISPUTE_EVENTS} set event_type = 'dispute.lost', signed_amount = 0
        {one_row(DISPUTE_EVENTS, "event_type = 'dispute.opened' and signed_amount != 0")}
        """,
    ),
    PlantedFault(LEGS, "a leg is missing", f"delete from {LEDGER} {one_row(LEDGER)}"),
    PlantedFault(
        LEGS,
        "a leg has the other sign",
        f"update {LEDGER} set amount = -amount {one_row(LEDGER, 'amount != 0')}",
    ),
    PlantedFault(
        LEGS,
        "the legs of an entry stand under two currencies",
        f"update {LEDGER} set currency_code = 'XTS' {one_row(LEDGER, 'amount != 0')}",
    ),
    PlantedFault(
        LEGS,
        "one leg was converted at another rate",
        f"""
        update {LEDGER} set amount_reporting = amount_reporting + 0.0001
        {one_row(LEDGER, "amount_reporting is not null")}
        """,
    ),
    PlantedFault(
        BALANCE,
        "a day closes at something else than its opening and its movements",
        f"update {BALANCES} set net_movement_amount = net_movement_amount + 0.01 {one_row(BALANCES)}",
    ),
    PlantedFault(
        BALANCE,
        "a quiet day is left out",
        f"""
        delete from {BALANCES}
        {one_row(BALANCES, f"business_date < (select max(business_date) - 1 from {BALANCES}) and not has_movement")}
        """,
    ),
    PlantedFault(
        BALANCE,
        "a balance begins at what nothing explains",
        f"update {BALANCES} set opening_amount = opening_amount + 5, closing_amount = closing_amount + 5",
    ),
    PlantedFault(
        BALANCE,
        "a movement of the ledger is in no balance",
        f"""
        update {LEDGER} set amount = amount + 0.01
        {one_row(LEDGER, "ledger_account = 'merchant_balance'")}
        """,
    ),
    PlantedFault(
        BALANCE,
        "a month closes at another balance than its last day",
        """
        update public.rpt_balance_change
        set net_movement_amount = net_movement_amount + 1, closing_amount = closing_amount + 1
        where rowid = (select min(rowid) from public.rpt_balance_change)
        """,
    ),
    PlantedFault(
        PAYOUT_SUM,
        "a payout took more than it announced",
        f"""
        update {LEDGER} set amount_minor = amount_minor - 1
        {one_row(LEDGER, "entry_type = 'payout' and ledger_account = 'merchant_balance'")}
        """,
    ),
    PlantedFault(
        PAYOUT_SUM,
        "a movement changed after it was paid out",
        f"""
        update {SETTLEMENTS} set amount_minor = amount_minor + 1
        {one_row(SETTLEMENTS, "amount_minor is not null and not has_currency_mismatch")}
        """,
    ),
    PlantedFault(
        PAYOUT_SUM,
        "a difference is not flagged",
        f"""
        update {PAYOUT_REPORT}
        set announced_amount_minor = announced_amount_minor + 1, difference_minor = difference_minor + 1
        {one_row(PAYOUT_REPORT, "not has_difference")}
        """,
    ),
    PlantedFault(
        PAYOUT_SUM,
        "more payouts differ than bad input explains",
        f"update {PAYOUT_REPORT} set has_difference = true",
    ),
    PlantedFault(
        PAID_ONCE,
        "a movement was paid by a second payout",
        f"""
        insert into {SETTLEMENTS}
        select * replace ('planted' as payout_id) from {SETTLEMENTS} {one_row(SETTLEMENTS, "is_successful")}
        """,
    ),
    PlantedFault(
        REVERSAL,
        "a payout failed and was not booked back",
        f"""
        update {PAYOUTS} set failed_event_id = 'planted', payout_status = 'failed'
        {one_row(PAYOUTS, "payout_status = 'paid' and amount != 0")}
        """,
    ),
    PlantedFault(
        REVERSAL,
        "a payout that stayed paid was booked back",
        f"""
        update {LEDGER} set entry_type = 'payout_reversal'
        {one_row(LEDGER, "entry_type = 'payout'")}
        """,
    ),
    PlantedFault(
        REVERSAL,
        "the movements of a failed payout count as paid",
        f"""
        update {SETTLEMENTS} set payout_status = 'failed'
        {one_row(SETTLEMENTS, "is_successful")}
        """,
    ),
    PlantedFault(
        RATE,
        "a rate of the day after",
        f"""
        update {RATES} set rate_source_date = rate_date + 1, rate_age_days = -1
        {EXACT_RATE}
        """,
    ),
    PlantedFault(
        RATE,
        "a rate that is eight days old and still used",
        f"""
        update {RATES} set rate_source_date = rate_date - 8, rate_age_days = 8
        {EXACT_RATE}
        """,
    ),
    PlantedFault(
        RATE,
        "a rate whose age is not the age of its publication",
        f"update {RATES} set rate_age_days = rate_age_days + 1 {EXACT_RATE}",
    ),
    PlantedFault(
        RATE,
        "a currency that is not worth itself",
        f"update {SALES} set settlement_rate = 1.01 {one_row(SALES, 'currency_code = settlement_currency_code')}",
    ),
    PlantedFault(
        RATE,
        "a rate that calls itself missing and is used",
        f"update {SALES} set reporting_rate_status = 'missing' {one_row(SALES, 'reporting_rate is not null')}",
    ),
    PlantedFault(
        CONVERSION,
        "a payment was lost with its rate",
        f"delete from {SALES} {one_row(SALES)}",
    ),
    PlantedFault(
        CONVERSION,
        "a payment of nobody's",
        f"update {SALES} set transaction_key = 'planted' {one_row(SALES)}",
    ),
    PlantedFault(
        CONVERSION,
        "an amount with a known rate was not converted",
        f"""
        update {SALES} set amount_reporting = null
        {one_row(SALES, "reporting_rate is not null and amount is not null")}
        """,
    ),
    PlantedFault(
        CONVERSION,
        "an amount was converted at another rate than the one shown",
        f"""
        update {SALES} set amount_settlement = amount_settlement + 0.0001
        {one_row(SALES, "settlement_rate is not null and amount is not null")}
        """,
    ),
    PlantedFault(
        ORDER,
        "a status that cannot follow the one before",
        f"""
        update intermediate.int_status_history set is_legal_transition = false
        {one_row("intermediate.int_status_history", "change_source = 'event'")}
        """,
    ),
    PlantedFault(
        ORDER,
        "captured before it was authorized",
        f"""
        update {MILESTONES} set captured_at = authorized_at - interval 1 second
        {one_row(MILESTONES, "authorized_at is not null and captured_at is not null")}
        """,
    ),
    PlantedFault(
        PERSONAL,
        "a card number with spaces in a published text",
        "update public.dim_status set status_description = 'card 4111 1111 1111 1111 was refused'",
    ),
    PlantedFault(
        PERSONAL,
        "a card number of fifteen digits in an id",
        f"update {SALES} set transaction_id = '378282246310005' {one_row(SALES)}",
    ),
    PlantedFault(
        PERSONAL,
        "an e-mail address in a published name",
        f"""
        update public.dim_merchant set trade_name = 'ask jo@example.org'
        {one_row("public.dim_merchant")}
        """,
    ),
)
"""Faults of the singular tests. Those of the generic ones (1, 4, 6) follow from each test's own arguments."""
