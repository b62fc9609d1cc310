-- One row per payout and movement it lists, with what the ledger knows of that movement.
{{ config(
    materialized='incremental',
    incremental_strategy='append',
    pre_hook="{{ remove_changed_payouts() }}",
) }}
{%- set and_is_listed = ' and movement_id in (select unnested.movement_id from unnested)' if is_incremental() else '' %}
with

payouts as (
    select
        payout_id,
        row_version,
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
    {% if is_incremental() -%}
    where row_version not in (select built.payout_version from {{ this }} as built)
    {%- endif %}
),

announcements as (
    select
        event_id,
        movement_ids
    from {{ ref('int_payment_events_deduped') }}
    where event_type in ('payout.paid', 'payout.failed')
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

ledger as (
    select
        movement_id,
        row_version,
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
    where ledger_account = 'merchant_balance' and movement_id is not null{{ and_is_listed }}
),

-- few movements are announced twice: gathering all of them for their sake would cost more than everything else here
repeated as (
    select movement_id
    from ledger
    group by movement_id
    having count(*) > 1
),

-- a movement that two events announce is their sum: the difference to the payout shows it
summed as (
    select
        ledger.movement_id,
        min(ledger.entry_type) as entry_type,
        min(ledger.transaction_key) as transaction_key,
        min(ledger.merchant_id) as merchant_id,
        min(ledger.currency_code) as currency_code,
        max(ledger.currency_code) as other_currency_code,
        cast(sum(ledger.amount) as {{ type_money() }}) as amount,
        cast(sum(ledger.amount_minor) as bigint) as amount_minor,
        max(case when ledger.is_orphan then 1 else 0 end) = 1 as is_orphan,
        min(ledger.business_date) as business_date,
        min(ledger.available_at) as available_at,
        min(ledger.event_at_utc) as event_at_utc,
        max(ledger.loaded_at) as loaded_at
    from ledger
    inner join repeated on ledger.movement_id = repeated.movement_id
    group by ledger.movement_id
),

movements as (
    select
        movement_id,
        row_version as movement_version,
        row_version as fingerprint,
        entry_type,
        transaction_key,
        merchant_id,
        currency_code,
        currency_code as other_currency_code,
        amount,
        amount_minor,
        is_orphan,
        business_date,
        available_at,
        event_at_utc,
        loaded_at
    from ledger
    where movement_id not in (select repeated.movement_id from repeated)

    union all

    select
        movement_id,
        null as movement_version,
        {{ hash_key([
            'entry_type',
            'transaction_key',
            'merchant_id',
            'currency_code',
            'other_currency_code',
            'amount',
            'amount_minor',
            'is_orphan',
            'business_date',
            utc_microseconds('available_at'),
            utc_microseconds('event_at_utc'),
            utc_microseconds('loaded_at'),
        ]) | indent(8) }} as fingerprint,
        entry_type,
        transaction_key,
        merchant_id,
        currency_code,
        other_currency_code,
        amount,
        amount_minor,
        is_orphan,
        business_date,
        available_at,
        event_at_utc,
        loaded_at
    from summed
),

final as (
    select
        unnested.payout_id,
        unnested.movement_id,
        {{ hash_key(['unnested.movement_id', 'payouts.row_version', 'movements.fingerprint']) }} as row_version,
        payouts.row_version as payout_version,
        movements.movement_version,
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
        movements.amount,
        movements.amount_minor,
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
