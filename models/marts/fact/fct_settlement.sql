-- One row per payout and movement: which money each payout paid, and when that money had become available.
{{ config(
    materialized='incremental',
    incremental_strategy='append',
    pre_hook="{{ remove_stale('int_payout_movements') }}",
) }}
with

movements as (
    select
        payout_id,
        movement_id,
        row_version,
        source_system,
        merchant_id,
        transaction_key,
        entry_type,
        payout_status,
        currency_code,
        movement_currency_code,
        listings_count,
        currency_exponent,
        amount,
        amount_minor,
        is_successful,
        is_known_movement,
        is_orphan,
        has_currency_mismatch,
        has_merchant_mismatch,
        arrival_date,
        business_date,
        movement_business_date,
        available_at,
        movement_at_utc,
        event_at_utc,
        last_event_at,
        loaded_at
    from {{ ref('int_payout_movements') }}
    {{ only_changed() }}
),

merchants as (
    select
        merchant_version_key,
        merchant_key,
        merchant_id,
        valid_from,
        valid_to
    from {{ ref('dim_merchant_history') }}
),

currencies as (
    select
        currency_key,
        currency_code
    from {{ ref('dim_currency') }}
),

dates as (
    select
        date_key,
        date_day
    from {{ ref('dim_date') }}
),

final as (
    select
        {{ hash_key(['movements.payout_id', 'movements.movement_id']) }} as settlement_key,
        case
            when movements.is_known_movement and not movements.is_orphan then movements.transaction_key
            else '{{ var("unknown_key") }}'
        end as transaction_key,
        {{ key_or_default('merchants.merchant_key', 'movements.merchant_id') | indent(8) }} as merchant_key,
        {{ key_or_default('merchants.merchant_version_key', 'movements.merchant_id') | indent(8) }}
            as merchant_version_key,
        {{ key_or_default('currencies.currency_key', 'movements.currency_code') | indent(8) }} as currency_key,
        coalesce(dates.date_key, {{ var('unknown_key') }}) as business_date_key,
        coalesce(
            movement_dates.date_key,
            case
                when movements.is_known_movement then {{ var('unknown_key') }}
                else {{ var('not_applicable_key') }}
            end
        ) as movement_date_key,
        coalesce(
            arrival_dates.date_key,
            case
                when movements.arrival_date is null then {{ var('not_applicable_key') }}
                else {{ var('unknown_key') }}
            end
        ) as arrival_date_key,
        movements.row_version,
        movements.payout_id,
        movements.movement_id,
        movements.source_system,
        movements.entry_type,
        movements.payout_status,
        movements.currency_code,
        movements.movement_currency_code,
        movements.listings_count,
        movements.currency_exponent,
        movements.amount,
        movements.amount_minor,
        cast({{ seconds_between('movements.movement_at_utc', 'movements.available_at') }} as bigint)
            as settlement_lag_seconds,
        cast({{ seconds_between('movements.movement_at_utc', 'movements.event_at_utc') }} as bigint)
            as payout_lag_seconds,
        movements.is_successful,
        movements.is_known_movement,
        movements.is_orphan,
        movements.has_currency_mismatch,
        movements.has_merchant_mismatch,
        movements.arrival_date,
        movements.business_date,
        movements.available_at,
        movements.movement_at_utc,
        movements.event_at_utc,
        movements.last_event_at as updated_at,
        movements.loaded_at
    from movements
    left join merchants
        on
            movements.merchant_id = merchants.merchant_id
            and movements.event_at_utc >= merchants.valid_from
            and movements.event_at_utc < merchants.valid_to
    left join currencies on movements.currency_code = currencies.currency_code
    left join dates on movements.business_date = dates.date_day
    left join dates as movement_dates on movements.movement_business_date = movement_dates.date_day
    left join dates as arrival_dates on movements.arrival_date = arrival_dates.date_day
)

select * from final
