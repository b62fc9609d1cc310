-- One row per issue and source system: bad input that was kept and flagged, counted, from first to last seen.
{#- one CTE per issue: a row per occurrence, with `source_system` and `seen_at`; list its name here to count it -#}
{%- set issues = [
    'money_without_amount_or_currency',
    'capture_without_payment',
    'captured_payment_without_capture_event',
    'movement_announced_twice',
    'refund_without_payment',
    'refund_exceeds_capture',
    'refund_in_another_currency',
    'refund_with_conflicting_outcomes',
    'dispute_without_payment',
    'dispute_in_another_currency',
    'dispute_with_conflicting_outcomes',
    'dispute_outcome_without_opening',
    'payout_with_unknown_movement',
    'payout_with_movement_of_another_merchant',
    'payout_with_movement_in_another_currency',
    'payout_differs_from_its_movements',
    'payout_failed_before_it_was_paid',
    'movement_paid_twice',
    'payment_without_exchange_rate',
] %}
with

money_without_amount_or_currency as (
    select
        source_system,
        occurred_at as seen_at
    from {{ ref('int_payment_events_deduped') }}
    where
        event_type in (
            'payment.captured', 'fee.charged', 'refund.succeeded', 'dispute.opened', 'dispute.won', 'payout.paid'
        )
        and (amount is null or currency_code is null)
),

capture_without_payment as (
    select
        source_system,
        event_at_utc as seen_at
    from {{ ref('int_ledger_entries') }}
    where
        is_orphan
        and entry_type = 'capture'
        and ledger_account = 'merchant_balance'
),

captured_payment_without_capture_event as (
    select
        source_system,
        event_at_utc as seen_at
    from {{ ref('fct_sales') }}
    where
        is_ever_captured
        and captured_at is null
),

movement_announced_twice as (
    select
        min(source_system) as source_system,
        max(event_at_utc) as seen_at
    from {{ ref('int_ledger_entries') }}
    where
        ledger_account = 'merchant_balance'
        and movement_id is not null
    group by movement_id
    having count(*) > 1
),

refund_without_payment as (
    select
        source_system,
        event_at_utc as seen_at
    from {{ ref('int_refunds') }}
    where is_orphan
),

refund_exceeds_capture as (
    select
        source_system,
        event_at_utc as seen_at
    from {{ ref('int_refunds') }}
    where has_excess
),

refund_in_another_currency as (
    select
        source_system,
        event_at_utc as seen_at
    from {{ ref('int_refunds') }}
    where has_currency_mismatch
),

refund_with_conflicting_outcomes as (
    select
        source_system,
        event_at_utc as seen_at
    from {{ ref('int_refunds') }}
    where has_conflicting_outcomes
),

dispute_without_payment as (
    select
        source_system,
        first_event_at as seen_at
    from {{ ref('int_disputes') }}
    where is_orphan
),

dispute_in_another_currency as (
    select
        source_system,
        first_event_at as seen_at
    from {{ ref('int_disputes') }}
    where has_currency_mismatch
),

dispute_with_conflicting_outcomes as (
    select
        source_system,
        last_event_at as seen_at
    from {{ ref('int_disputes') }}
    where has_conflicting_outcomes
),

dispute_outcome_without_opening as (
    select
        source_system,
        first_event_at as seen_at
    from {{ ref('int_disputes') }}
    where has_missing_opening
),

payout_with_unknown_movement as (
    select
        source_system,
        event_at_utc as seen_at
    from {{ ref('rpt_payout_reconciliation') }}
    where has_unknown_movements
),

payout_with_movement_of_another_merchant as (
    select
        source_system,
        event_at_utc as seen_at
    from {{ ref('rpt_payout_reconciliation') }}
    where foreign_merchant_movements_count > 0
),

payout_with_movement_in_another_currency as (
    select
        source_system,
        event_at_utc as seen_at
    from {{ ref('rpt_payout_reconciliation') }}
    where foreign_currency_movements_count > 0
),

payout_differs_from_its_movements as (
    select
        source_system,
        event_at_utc as seen_at
    from {{ ref('rpt_payout_reconciliation') }}
    where has_difference
),

payout_failed_before_it_was_paid as (
    select
        source_system,
        event_at_utc as seen_at
    from {{ ref('int_payouts') }}
    where has_missing_payment
),

movement_paid_twice as (
    select
        min(source_system) as source_system,
        max(event_at_utc) as seen_at
    from {{ ref('fct_settlement') }}
    where is_successful
    group by movement_id
    having count(*) > 1
),

payment_without_exchange_rate as (
    select
        source_system,
        event_at_utc as seen_at
    from {{ ref('fct_sales') }}
    where reporting_rate_status in ('missing', 'stale')
),

occurrences as (
    {%- for issue in issues %}
    select
        '{{ issue }}' as issue,
        source_system,
        seen_at
    from {{ issue }}
    union all
    {%- endfor %}
    -- one row per payment or event that the payments' own rules object to
    select
        issue,
        source_system,
        seen_at
    from {{ ref('int_payment_issues') }}
),

final as (
    select
        issue,
        coalesce(source_system, 'unknown') as source_system,
        count(*) as occurrences_count,
        min(seen_at) as first_seen_at,
        max(seen_at) as last_seen_at
    from occurrences
    group by issue, coalesce(source_system, 'unknown')
)

select * from final
