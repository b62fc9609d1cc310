-- One row per currency and date: the last published rate to the reporting currency, its age, and whether it counts.
with

rates as (
    select
        currency_code,
        rate_date,
        reporting_currency_code,
        rate_to_reporting,
        rate_status,
        rate_source_date,
        rate_age_days,
        loaded_at
    from {{ ref('int_exchange_rates_filled') }}
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
        {{ hash_key(['rates.currency_code', date_key('rates.rate_date')]) | indent(8) }} as exchange_rate_key,
        {{ key_or_default('currencies.currency_key', 'rates.currency_code') | indent(8) }} as currency_key,
        coalesce(dates.date_key, {{ var('unknown_key') }}) as date_key,
        -- the one collection in which rates are published
        'mongodb' as source_system,
        rates.currency_code,
        rates.reporting_currency_code,
        rates.rate_to_reporting,
        rates.rate_status,
        rates.rate_date,
        rates.rate_source_date,
        cast(rates.rate_age_days as integer) as rate_age_days,
        rates.loaded_at
    from rates
    left join currencies on rates.currency_code = currencies.currency_code
    left join dates on rates.rate_date = dates.date_day
)

select * from final
