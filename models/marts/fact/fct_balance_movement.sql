-- One row per ledger leg: entry, account and currency; the legs of an entry sum to zero.
{{ config(
    materialized='incremental',
    incremental_strategy='append',
    pre_hook=["{{ remove_stale('int_ledger_entries') }}", "{{ remove_with_other_rate() }}"],
) }}
with

legs as (
    select
        entry_id,
        ledger_account,
        currency_code,
        row_version,
        entry_type,
        movement_id,
        transaction_key,
        transaction_id,
        dispute_id,
        payout_id,
        merchant_id,
        source_system,
        currency_exponent,
        amount,
        amount_minor,
        is_orphan,
        has_currency_mismatch,
        business_date,
        available_at,
        event_at_utc,
        loaded_at
    from {{ ref('int_ledger_entries') }}
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

reporting_rates as (
    select
        currency_code,
        rate_date,
        rate_to_reporting,
        rate_status
    from {{ ref('int_exchange_rates_filled') }}
),

final as (
    select
        {{ hash_key(['legs.entry_id', 'legs.ledger_account', 'legs.currency_code']) }} as balance_movement_key,
        case
            when legs.transaction_id is null then '{{ var("not_applicable_key") }}'
            when legs.is_orphan then '{{ var("unknown_key") }}'
            else legs.transaction_key
        end as transaction_key,
        -- the merchant of a payment that nobody knows is unknown too
        coalesce(merchants.merchant_key, '{{ var("unknown_key") }}') as merchant_key,
        coalesce(merchants.merchant_version_key, '{{ var("unknown_key") }}') as merchant_version_key,
        {{ key_or_default('currencies.currency_key', 'legs.currency_code') | indent(8) }} as currency_key,
        coalesce(dates.date_key, {{ var('unknown_key') }}) as business_date_key,
        legs.row_version,
        legs.entry_id,
        legs.movement_id,
        legs.transaction_id,
        legs.dispute_id,
        legs.payout_id,
        legs.source_system,
        legs.entry_type,
        legs.ledger_account,
        legs.currency_code,
        '{{ var("reporting_currency") }}' as reporting_currency_code,
        legs.currency_exponent,
        legs.amount,
        legs.amount_minor,
        {{ convert_money('legs.amount', 'reporting_rates.rate_to_reporting') }} as amount_reporting,
        reporting_rates.rate_to_reporting as reporting_rate,
        coalesce(reporting_rates.rate_status, 'missing') as reporting_rate_status,
        legs.is_orphan,
        legs.has_currency_mismatch,
        legs.business_date,
        legs.available_at,
        legs.event_at_utc,
        legs.event_at_utc as updated_at,
        legs.loaded_at
    from legs
    left join merchants
        on
            legs.merchant_id = merchants.merchant_id
            and legs.event_at_utc >= merchants.valid_from
            and legs.event_at_utc < merchants.valid_to
    left join currencies on legs.currency_code = currencies.currency_code
    left join dates on legs.business_date = dates.date_day
    left join reporting_rates
        on
            legs.currency_code = reporting_rates.currency_code
            and legs.business_date = reporting_rates.rate_date
)

select * from final
