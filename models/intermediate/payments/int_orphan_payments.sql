-- One row per payment that only events tell of, and one for all events that name no payment: their fingerprint.
with

-- a payout is no payment: int_payouts keeps its fingerprint
events as (
    select
        coalesce(transaction_key, '{{ var("unknown_key") }}') as transaction_key,
        loaded_at
    from {{ ref('int_payment_events_deduped') }}
    where event_type not in ('payout.paid', 'payout.failed')
),

transactions as (
    select transaction_key
    from {{ ref('int_transactions_unified') }}
),

gathered as (
    select
        events.transaction_key,
        count(*) as events_count,
        max(events.loaded_at) as loaded_at
    from events
    left join transactions on events.transaction_key = transactions.transaction_key
    where transactions.transaction_key is null
    group by events.transaction_key
),

final as (
    select
        transaction_key,
        {{ hash_key(['transaction_key', 'events_count', utc_microseconds('loaded_at')]) }} as row_version,
        events_count,
        loaded_at
    from gathered
)

select * from final
