-- One row per payout and movement it lists, with what the ledger knows of that movement.
with

payouts as (
    select
        payout_id,
        announcing_event_id,
        merchant_id,
        source_system,
        currency_code,
        currency_exponent,
        payout_status,
        is_successful,
        arrival_date,
        business_date,
        event_at_utc,
        last_event_at,
        loaded_at
    from {{ ref('int_payouts') }}
),

announcements as (
    select
        event_id,
        movement_ids
    from {{ ref('int_payment_events_deduped') }}
    where event_type in ('payout.paid', 'payout.failed')
),

ledger as (
    select
        movement_id,
        entry_type,
        transaction_key,
        merchant_id,
        currency_code,
        amount,
        amount_minor,
        is_orphan,
        business_date,
        available_at,
        event_at_utc,
        loaded_at
    from {{ ref('int_ledger_entries') }}
    where
        ledger_account = 'merchant_balance'
        and movement_id is not null
),

-- a movement that two events announce is their sum: the difference to the payout shows it
movements as (
    select
        movement_id,
        min(entry_type) as entry_type,
        min(transaction_key) as transaction_key,
        min(merchant_id) as merchant_id,
        min(currency_code) as currency_code,
        max(currency_code) as other_currency_code,
        sum(amount) as amount,
        sum(amount_minor) as amount_minor,
        max(case when is_orphan then 1 else 0 end) = 1 as is_orphan,
        min(business_date) as business_date,
        min(available_at) as available_at,
        min(event_at_utc) as event_at_utc,
        max(loaded_at) as loaded_at
    from ledger
    group by movement_id
),

listed as (
    select
        payouts.payout_id,
        announcements.movement_ids
    from payouts
    inner join announcements on payouts.announcing_event_id = announcements.event_id
),

-- a movement that its payout lists twice is still paid once
unnested as (
    select
        listed.payout_id,
        listed.array_value as movement_id,
        count(*) as listings_count
    from {{ json_array_rows('listed', 'movement_ids') | indent(4) }}
    where listed.array_value is not null
    group by listed.payout_id, listed.array_value
),

final as (
    select
        unnested.payout_id,
        unnested.movement_id,
        payouts.source_system,
        payouts.merchant_id,
        movements.merchant_id as movement_merchant_id,
        movements.transaction_key,
        movements.entry_type,
        payouts.payout_status,
        payouts.currency_code,
        movements.currency_code as movement_currency_code,
        cast(unnested.listings_count as integer) as listings_count,
        payouts.currency_exponent,
        cast(movements.amount as {{ type_money() }}) as amount,
        cast(movements.amount_minor as bigint) as amount_minor,
        payouts.is_successful,
        movements.movement_id is not null as is_known_movement,
        coalesce(movements.is_orphan, false) as is_orphan,
        coalesce(
            movements.currency_code != payouts.currency_code
            or movements.other_currency_code != payouts.currency_code,
            false
        ) as has_currency_mismatch,
        coalesce(movements.merchant_id != payouts.merchant_id, false) as has_merchant_mismatch,
        payouts.arrival_date,
        payouts.business_date,
        movements.business_date as movement_business_date,
        movements.available_at,
        movements.event_at_utc as movement_at_utc,
        payouts.event_at_utc,
        payouts.last_event_at,
        greatest(payouts.loaded_at, coalesce(movements.loaded_at, payouts.loaded_at)) as loaded_at
    from unnested
    inner join payouts on unnested.payout_id = payouts.payout_id
    left join movements on unnested.movement_id = movements.movement_id
)

select * from final
