-- One row per issue and record it was found on: what the payments' own rules have to object, and when it landed.
{%- set tolerance = var('clock_skew_tolerance_seconds', 60) %}
with

changes as (
    select
        transaction_key,
        changed_at
    from {{ ref('int_status_history') }}
    where not is_legal_transition
),

milestones as (
    select
        transaction_key,
        attempted_at,
        authorized_at,
        captured_at,
        first_refund_at,
        dispute_opened_at,
        dispute_won_at,
        dispute_lost_at
    from {{ ref('int_transaction_milestones') }}
),

transactions as (
    select
        transaction_key,
        source_system,
        transaction_id,
        currency_exponent,
        amount,
        tax,
        has_invalid_amount,
        event_at_utc,
        updated_at,
        loaded_at
    from {{ ref('int_transactions_unified') }}
),

events as (
    select
        event_id,
        transaction_key,
        source_system,
        event_type,
        occurred_at,
        produced_at,
        loaded_at
    from {{ ref('int_payment_events_deduped') }}
),

-- a clock may be a minute wrong without anybody having done anything wrong
found as (
    select
        'illegal_status_transition' as issue,
        transactions.source_system,
        transactions.transaction_id as natural_id,
        transactions.loaded_at as seen_at
    from changes
    inner join transactions on changes.transaction_key = transactions.transaction_key

    union all

    select
        'milestones_out_of_order' as issue,
        transactions.source_system,
        transactions.transaction_id as natural_id,
        transactions.loaded_at as seen_at
    from milestones
    inner join transactions on milestones.transaction_key = transactions.transaction_key
    where {{ is_out_of_order('milestones') }}

    union all

    select
        'invalid_amount' as issue,
        source_system,
        transaction_id as natural_id,
        loaded_at as seen_at
    from transactions
    where has_invalid_amount

    union all

    select
        'unknown_currency' as issue,
        source_system,
        transaction_id as natural_id,
        loaded_at as seen_at
    from transactions
    where currency_exponent is null

    union all

    select
        'more_decimals_than_the_currency' as issue,
        source_system,
        transaction_id as natural_id,
        loaded_at as seen_at
    from transactions
    where
        {{ has_excess_decimals('amount', 'currency_exponent') | indent(8) }}
        or {{ has_excess_decimals('tax', 'currency_exponent') | indent(8) }}

    union all

    select
        'event_after_its_production' as issue,
        source_system,
        event_id as natural_id,
        loaded_at as seen_at
    from events
    where
        {{ seconds_between('produced_at', 'occurred_at') }} > {{ tolerance }}
        or {{ seconds_between('loaded_at', 'occurred_at') }} > {{ tolerance }}

    union all

    select
        'payment_after_its_landing' as issue,
        source_system,
        transaction_id as natural_id,
        loaded_at as seen_at
    from transactions
    where
        {{ seconds_between('loaded_at', 'event_at_utc') }} > {{ tolerance }}
        or {{ seconds_between('loaded_at', 'updated_at') }} > {{ tolerance }}

    union all

    select
        case
            when events.event_type = 'fraud.reported' then 'fraud_report_without_payment'
            else 'attempt_without_payment'
        end as issue,
        events.source_system,
        events.event_id as natural_id,
        events.loaded_at as seen_at
    from events
    left join transactions on events.transaction_key = transactions.transaction_key
    where
        transactions.transaction_key is null
        and (
            events.event_type = 'fraud.reported'
            or events.event_type in (
                'payment.attempted',
                'payment.authenticated',
                'payment.authorized',
                'payment.declined',
                'payment.blocked'
            )
        )
),

final as (
    select
        issue,
        coalesce(source_system, 'unknown') as source_system,
        natural_id,
        cast(count(*) as integer) as occurrences,
        min(seen_at) as seen_at
    from found
    group by issue, coalesce(source_system, 'unknown'), natural_id
)

select * from final
