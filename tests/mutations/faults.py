"""Faults that somebody could write into a model without noticing, as data.

Add one: the file, a piece of it that stands there exactly once, what stands there instead, and what is wrong then.
The models of the file are built and tested, with everything that follows from them. For a macro, name the models that
show it. A fault that no test notices is a missing test: add the test, not an exception.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath


@dataclass(frozen=True)
class ModelFault:
    """One wrong change.

    Attributes:
        file: path in the project.
        old: text that stands in the file exactly once.
        new: what replaces it; the model must still run.
        breaks: what is wrong then, in one line.
        models: dbt models to build, with what follows from them; by default the file's own.
    """

    file: str
    old: str
    new: str
    breaks: str
    models: tuple[str, ...] = ()

    @property
    def selected(self) -> tuple[str, ...]:
        """The models to build."""
        return self.models or (PurePosixPath(self.file).stem,)

    @property
    def name(self) -> str:
        """Short and unique."""
        return f"{PurePosixPath(self.file).stem}: {self.breaks}"


PAYMENTS = "models/intermediate/payments"
UNIFIED = f"{PAYMENTS}/int_transactions_unified.sql"
EVENTS = f"{PAYMENTS}/int_payment_events_deduped.sql"
STATUSES = f"{PAYMENTS}/int_status_history.sql"
MILESTONES = f"{PAYMENTS}/int_transaction_milestones.sql"
PUBLISHED = f"{PAYMENTS}/int_exchange_rates_published.sql"
FILLED = f"{PAYMENTS}/int_exchange_rates_filled.sql"
SETTLEMENT = f"{PAYMENTS}/int_settlement_rates.sql"
CROSSWALK = "models/intermediate/entities/int_entity_crosswalk.sql"
SALES = "models/marts/fact/fct_sales.sql"
FRAUD = "models/marts/fact/fct_fraud.sql"
LABELS = "models/intermediate/fraud/int_fraud_labels.sql"
VELOCITY = "models/intermediate/fraud/int_velocity.sql"
WINDOWS = "macros/modelling/velocity.sql"
REFUNDS = f"{PAYMENTS}/int_refunds.sql"
DISPUTES = f"{PAYMENTS}/int_disputes.sql"
PAYOUTS = f"{PAYMENTS}/int_payouts.sql"
LEDGER = f"{PAYMENTS}/int_ledger_entries.sql"
SALES_REFUNDS = "models/marts/fact/fct_refund.sql"
DISPUTE_EVENTS = "models/marts/fact/fct_dispute_event.sql"
BALANCES = "models/marts/fact/fct_merchant_balance_daily.sql"
RECONCILIATION = "models/marts/reporting/rpt_payout_reconciliation.sql"
SCHEMES = "models/marts/reporting/rpt_scheme_monitoring.sql"
ACCEPTANCE = "models/marts/reporting/rpt_acceptance.sql"
FRAUD_LOSS = "models/marts/reporting/rpt_fraud_loss.sql"
OVERVIEW = "models/marts/reporting/rpt_daily_overview.sql"
VERSIONS = "macros/modelling/versions.sql"
VOCABULARY = "macros/modelling/vocabulary.sql"
MONEY = "macros/money/money.sql"

FAULTS = (
    # --- payments of both databases
    ModelFault(
        UNIFIED,
        "left join locations on oltp_transactions.location_id",
        "inner join locations on oltp_transactions.location_id",
        "a payment at a place nobody knows is lost",
    ),
    ModelFault(
        UNIFIED,
        "where mongodb_documents.recency = 1",
        "where mongodb_documents.recency >= 1",
        "two documents with one transaction id are two payments",
    ),
    ModelFault(
        UNIFIED,
        "order by updated_at desc, document_id desc\n        ) as recency",
        "order by updated_at, document_id\n        ) as recency",
        "the oldest document speaks instead of the latest",
    ),
    ModelFault(
        UNIFIED,
        "{{ local_date('zoned.created_at', 'zoned.merchant_time_zone') }}",
        "{{ local_date('zoned.created_at', \"'UTC'\") }}",
        "the shop's time zone is ignored",
    ),
    ModelFault(
        UNIFIED,
        "and keyed.created_at < merchants.valid_to",
        "and keyed.created_at <= merchants.valid_to",
        "at the instant a version ends, two versions hold",
    ),
    ModelFault(
        UNIFIED,
        "coalesce(merchants.time_zone, keyed.document_time_zone, 'UTC')",
        "coalesce(keyed.document_time_zone, merchants.time_zone, 'UTC')",
        "the document's zone beats the shop's",
    ),
    ModelFault(
        UNIFIED,
        "{{ to_minor_units('zoned.amount', 'currencies.currency_exponent') | indent(8) }}",
        "{{ to_minor_units('zoned.amount', '2') | indent(8) }}",
        "every currency has two decimals",
    ),
    ModelFault(
        UNIFIED,
        "cast(zoned.amount - zoned.tax as",
        "cast(zoned.amount + zoned.tax as",
        "tax is added where it should be taken off",
    ),
    ModelFault(
        UNIFIED,
        "\n            and zoned.currency_code = fees.currency_code",
        "",
        "fees in another currency are fees of the payment",
    ),
    ModelFault(
        VOCABULARY,
        "'review': 'authorized'",
        "'review': 'captured'",
        "a document in review counts as captured",
        models=("int_transactions_unified",),
    ),
    ModelFault(
        VOCABULARY,
        "'captured', 'partially_refunded', 'refunded', 'disputed', 'charged_back'",
        "'captured', 'partially_refunded', 'disputed', 'charged_back'",
        "a refunded payment was never captured: last month's volume changes",
        models=("int_transactions_unified",),
    ),
    # --- events
    ModelFault(
        EVENTS,
        "where delivery_number = 1",
        "where delivery_number >= 1",
        "an event that was delivered twice counts twice",
    ),
    ModelFault(
        EVENTS,
        "    where\n        is_known_event_type\n{%- endset %}",
        "    where\n        true\n{%- endset %}",
        "events of unknown types are let through",
    ),
    ModelFault(
        EVENTS,
        "deliveries.occurred_at, deliveries.kafka_topic",
        "deliveries.occurred_at desc, deliveries.kafka_topic",
        "of several deliveries the last one is kept",
    ),
    # --- statuses and milestones
    ModelFault(
        STATUSES,
        "or previous_status_code != status_code",
        "or true",
        "a status that is said again is a change",
    ),
    ModelFault(
        STATUSES,
        "when event_type = 'dispute.lost' then 'charged_back'",
        "when event_type = 'dispute.lost' then 'disputed'",
        "a lost dispute stays open",
    ),
    ModelFault(
        STATUSES,
        "when refunded_amount >= payment_amount then 'refunded'",
        "when refunded_amount > payment_amount then 'refunded'",
        "a payment refunded to the last cent is refunded in part",
    ),
    ModelFault(
        STATUSES,
        "                and events.currency_code = transactions.currency_code\n",
        "",
        "a refund in another currency counts at its face value",
    ),
    ModelFault(
        MILESTONES,
        "case when events.currency_code = transactions.currency_code then abs(events.amount) end as amount",
        "abs(events.amount) as amount",
        "amounts of different currencies are added",
    ),
    ModelFault(
        MILESTONES,
        "where event_type in ('dispute.opened', 'dispute.won', 'dispute.lost')",
        "where event_type in ('dispute.inquiry', 'dispute.opened', 'dispute.won', 'dispute.lost')",
        "an inquiry is a dispute",
    ),
    ModelFault(
        MILESTONES,
        "case when is_lost = 1 then coalesce(lost_amount, opened_amount) end",
        "case when is_lost = 1 then lost_amount end",
        "a dispute lost without an amount of its own costs nothing",
    ),
    ModelFault(
        MILESTONES,
        "coalesce(dispute_amounts.dispute_lost_amount, 0) as dispute_lost_amount",
        "dispute_amounts.dispute_lost_amount",
        "no dispute is an unknown loss",
    ),
    ModelFault(
        MILESTONES,
        "{{ text_at_latest(column, 'recency') }}",
        "substr(min(recency || {{ column }}), 20)",
        "the first proof of 3-D Secure counts, not the last",
    ),
    # --- exchange rates
    ModelFault(
        PUBLISHED,
        "divide_quotes('reporting_units_per_base', 'units_per_base')",
        "divide_quotes('units_per_base', 'reporting_units_per_base')",
        "rates stand on their head",
    ),
    ModelFault(
        PUBLISHED,
        "                loaded_at desc,\n                document_id desc",
        "                loaded_at,\n                document_id desc",
        "a corrected publication is ignored",
    ),
    ModelFault(
        FILLED,
        "and spine.rate_date >= published.rate_date",
        "and spine.rate_date > published.rate_date",
        "a rate is not known on the day it is published",
    ),
    ModelFault(
        FILLED,
        "spine.rate_date < published.next_rate_date",
        "spine.rate_date <= published.next_rate_date",
        "on the day of a publication two rates hold",
    ),
    ModelFault(
        FILLED,
        "when rate_age_days <= {{ var('exchange_rate_max_age_days') }} then 'filled'",
        "when rate_age_days < {{ var('exchange_rate_max_age_days') }} then 'filled'",
        "a rate of exactly the greatest age is stale",
    ),
    ModelFault(
        SETTLEMENT,
        "{{ divide_quotes('settlement_units', 'payment_units') | indent(16) }}",
        "{{ divide_quotes('payment_units', 'settlement_units') | indent(16) }}",
        "the settlement rate stands on its head",
    ),
    ModelFault(
        MONEY,
        "cast({{ rate }} as {{ type_rate() }}), 4) as",
        "cast({{ rate }} as {{ type_rate() }}), 2) as",
        "conversions are rounded to cents",
        models=("fct_sales",),
    ),
    # --- people, shops, goods, and their versions
    ModelFault(
        CROSSWALK,
        "when 'customer' then {{ canonical_customer_id('source_id') }}",
        "when 'customer' then source_id",
        "a customer of both databases is two people",
    ),
    ModelFault(
        CROSSWALK,
        "    where\n        source_id is not null\n"
        "        -- landing puts it where a person stood who was erased: it names nobody\n"
        "        and source_id != '{{ var(\"erased_key\") }}'\n",
        "",
        "nobody is a member",
    ),
    ModelFault(
        VERSIONS,
        "            lead(effective_at) over (partition by {{ key }} order by effective_at),\n",
        "            lead(effective_at) over (partition by {{ key }} order by loaded_at),\n",
        "a version that lands late does not take its place",
        models=("int_customer_versions", "int_merchant_versions", "int_product_versions"),
    ),
    ModelFault(
        VERSIONS,
        "then {{ utc('1900-01-01') }}",
        "then effective_at",
        "nothing precedes the first version",
        models=("int_customer_versions", "int_merchant_versions", "int_product_versions"),
    ),
    ModelFault(
        VERSIONS,
        "    where previous_attributes_hash is null or previous_attributes_hash != attributes_hash\n",
        "",
        "two versions that differ in nothing are two",
        models=("int_customer_versions",),
    ),
    ModelFault(
        VERSIONS,
        "        where recency = 1\n",
        "",
        "two versions with one update time both hold",
        models=("int_customer_versions",),
    ),
    ModelFault(
        VERSIONS,
        "    where landing_number = 1\n",
        "",
        "a version that landed twice is two versions",
        models=("stg_oltp__product_history",),
    ),
    # --- facts
    ModelFault(
        SALES,
        "cast(gross_amount - fee_amount as {{ type_money() }}) as net_amount,",
        "cast(gross_amount as {{ type_money() }}) as net_amount,",
        "fees are not taken off",
    ),
    ModelFault(SALES, "    left join customers\n", "    inner join customers\n", "a sale to nobody known is lost"),
    ModelFault(
        SALES,
        "and transactions.event_at_utc < products.valid_to",
        "and transactions.event_at_utc <= products.valid_to",
        "at the instant a version ends, the sale is doubled",
    ),
    ModelFault(
        SALES,
        "and transactions.business_date = reporting_rates.rate_date",
        "and reporting_rates.rate_date = (select max(latest.rate_date) from reporting_rates as latest)",
        "today's rate replaces the rate of the day",
    ),
    ModelFault(
        SALES,
        "cast(coalesce(fee_amount, 0) as {{ type_money() }}) as fee_amount",
        "fee_amount",
        "a payment without a fee has an unknown fee",
    ),
    ModelFault(
        VELOCITY,
        "{%- for sign in ['', '-'] %}",
        "{%- for sign in [''] %}",
        "what is counted again does not see the days before the change",
    ),
    ModelFault(
        VELOCITY,
        "or converted.{{ column }} is distinct from counted.{{ column }}",
        "or converted.{{ column }} is null",
        "who saw a payment with another amount is not counted again",
    ),
    ModelFault(
        WINDOWS,
        "order by moment\n            range between {{ width }} preceding and 1 preceding\n        ) as payments",
        "order by moment\n            range between {{ width }} preceding and current row\n        ) as payments",
        "a payment counts itself",
        models=("int_velocity",),
    ),
    ModelFault(
        LABELS,
        "            when dispute_totals.is_every_dispute_won then 'legitimate'\n",
        "",
        "a dispute that was won still confirms fraud",
    ),
    ModelFault(
        LABELS,
        "                then least(\n",
        "                then greatest(\n",
        "a label is known later than it was",
    ),
    ModelFault(
        LABELS,
        "min(case when is_won then 1 else 0 end) = 1 as is_every_dispute_won",
        "max(case when is_won then 1 else 0 end) = 1 as is_every_dispute_won",
        "one dispute that was won clears the payment of all",
    ),
    ModelFault(
        LABELS,
        "coalesce(label = 'fraud' and label_source != 'review', false) as is_confirmed_fraud",
        "coalesce(label = 'fraud', false) as is_confirmed_fraud",
        "our own reviewer confirms fraud",
    ),
    ModelFault(
        LABELS,
        "max(case when events.is_fraud then 1 else 0 end) as is_fraud",
        "1 as is_fraud",
        "every dispute claims fraud",
    ),
    ModelFault(
        FRAUD,
        "cast(converted.gross_loss_amount - converted.recovered_amount as",
        "cast(converted.gross_loss_amount + converted.recovered_amount as",
        "what was won back is lost twice",
    ),
    ModelFault(
        FRAUD,
        "milestones.three_ds_outcome in ('authenticated', 'attempted')",
        "milestones.three_ds_outcome in ('authenticated', 'attempted', 'exempted')",
        "an exemption that we asked for shifts the liability",
    ),
    ModelFault(
        REFUNDS,
        "case when is_succeeded and not has_currency_mismatch then amount else 0 end as counted_amount",
        "case when not has_currency_mismatch then amount else 0 end as counted_amount",
        "a refund that failed uses up the capture",
    ),
    ModelFault(
        REFUNDS,
        "left join transactions on decided.transaction_key",
        "inner join transactions on decided.transaction_key",
        "a refund of a payment nobody knows is dropped",
    ),
    ModelFault(
        DISPUTES,
        "coalesce(won_at is not null and (lost_at is null or won_at >= lost_at), false) as is_won",
        "coalesce(won_at is not null, false) as is_won",
        "told both ways, the win counts even where the loss came later",
    ),
    ModelFault(
        PAYOUTS,
        "case when gathered.failed_event_id is null then 'paid' else 'failed' end as payout_status",
        "'paid' as payout_status",
        "a payout that the bank sent back stays paid",
    ),
    ModelFault(
        LEDGER,
        "    where is_succeeded{{",
        "    where (is_succeeded or not is_succeeded){{",
        "failed refunds are booked",
    ),
    ModelFault(
        LEDGER,
        "        paid_event_id is not null\n        and failed_event_id is not null\n",
        "        failed_event_id is not null\n",
        "a payout that nobody announced is booked",
    ),
    ModelFault(
        SALES_REFUNDS,
        "case when refunds.is_succeeded then -refunds.amount else 0 end as signed_amount",
        "case when refunds.is_succeeded then refunds.amount else 0 end as signed_amount",
        "refunds bring money in",
    ),
    ModelFault(
        SALES_REFUNDS,
        "amount_reporting_at_payment_rate - amount_reporting end",
        "amount_reporting - amount_reporting_at_payment_rate end",
        "a loss on exchange is a gain",
    ),
    ModelFault(
        DISPUTE_EVENTS,
        "when events.event_id = disputes.won_event_id then disputes.returned_amount",
        "when events.event_id = disputes.won_event_id then 0",
        "a win brings nothing back",
    ),
    ModelFault(
        BALANCES,
        "    where legs.ledger_account = 'merchant_balance'",
        "    where legs.ledger_account in ('merchant_balance', 'bank')",
        "what left our bank is still the merchant's",
    ),
    ModelFault(
        BALANCES,
        "cast(filled.closing_amount - filled.net_movement_amount as decimal(38, 4)) as opening_amount",
        "filled.closing_amount as opening_amount",
        "a day opens at its own close",
    ),
    # --- reports
    ModelFault(
        OVERVIEW,
        "cast(captured_amount - refunded_amount - dispute_lost_amount as decimal(38, 4)) as net_volume",
        "cast(captured_amount - refunded_amount as decimal(38, 4)) as net_volume",
        "lost disputes do not reduce net volume",
    ),
    ModelFault(
        OVERVIEW,
        "sum(case when is_ever_captured then gross_amount end) as captured",
        "sum(gross_amount) as captured",
        "what failed counts as captured",
    ),
    ModelFault(
        OVERVIEW,
        "greatest(coalesce(milestones.attempts_count, 0), 1) as attempts",
        "coalesce(milestones.attempts_count, 0) as attempts",
        "a payment without events was never attempted",
    ),
    ModelFault(
        OVERVIEW,
        "        milestones.authorized_at is null\n        and (milestones.blocked_at is not null",
        "        (milestones.blocked_at is not null",
        "what a review stopped later was never asked",
    ),
    ModelFault(
        OVERVIEW,
        "left join fraud on sales.transaction_key",
        "inner join fraud on sales.transaction_key",
        "a payment without a fraud row is not reported",
    ),
    ModelFault(
        "macros/masking/suppress_small_groups.sql",
        "k=10",
        "k=1",
        "small groups are published",
        models=("rpt_daily_overview",),
    ),
    ModelFault(
        RECONCILIATION,
        "sum(case when not has_currency_mismatch then amount end) as movements_amount",
        "sum(amount) as movements_amount",
        "movements in another currency are added to the payout's",
    ),
    ModelFault(
        RECONCILIATION,
        "when compared.unknown_movements_count > 0 then 'unknown_movements'",
        "when compared.unknown_movements_count > 1 then 'unknown_movements'",
        "one unknown movement is not noticed",
    ),
    ModelFault(
        RECONCILIATION,
        "    where settlements.is_successful\n",
        "    where true\n",
        "a failed payout is replaced by another failed one",
    ),
    ModelFault(
        SCHEMES,
        "when 'prior_month_sales' then measured.prior_month_sales",
        "when 'prior_month_sales' then measured.sales",
        "chargebacks are divided by this month's sales",
    ),
    ModelFault(
        SCHEMES,
        "{{ local_date('cases.case_at', 'merchant_zones.time_zone') }}",
        "{{ utc_date('cases.case_at') }}",
        "a case counts on the day of Greenwich, the sales it is divided by on the shop's",
    ),
    ModelFault(
        SCHEMES,
        "and numerator * 10000 >= ratio_from_bps * denominator",
        "and numerator * 10000 > ratio_from_bps * denominator",
        "a ratio exactly at the threshold is within",
    ),
    ModelFault(
        SCHEMES,
        "when 'fraud_reports_and_disputes' then measured.fraud_reports + measured.disputes",
        "when 'fraud_reports_and_disputes' then measured.disputes",
        "fraud reports do not count for VAMP",
    ),
    ModelFault(
        ACCEPTANCE,
        "attempts - blocked_attempts - incomplete_attempts as authorization_denominator_raw",
        "attempts - blocked_attempts as authorization_denominator_raw",
        "incomplete 3-D Secure lowers the authorization rate",
    ),
    ModelFault(
        FRAUD_LOSS,
        "left join fraud on sales.transaction_key",
        "inner join fraud on sales.transaction_key",
        "a payment without a fraud row is no volume",
    ),
    ModelFault(
        "models/marts/reporting/rpt_dispute_activity.sql",
        "sum(case when calendar.first_of_week = charge_weeks.charge_week then 1 else 0 end)",
        "sum(1)",
        "dispute rate and dispute activity are one",
    ),
    ModelFault(
        "models/marts/reporting/rpt_tra_reference.sql",
        "{{ days_between('first_day', 'date_day') }} >= 89",
        "{{ days_between('first_day', 'date_day') }} >= 90",
        "the rolling window is a day too long",
    ),
)
"""At least thirty, by the design."""
