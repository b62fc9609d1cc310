-- A rate was published on or before the day it is used, at most var exchange_rate_max_age_days before; a currency's
-- rate to itself is 1; a rate that is not usable is null, and says so.
{{ config(tags=['invariant'], meta={'invariant': 21}) }}
{%- set maximum_age = var('exchange_rate_max_age_days') %}
with

rates as (
    select
        exchange_rate_key as row_key,
        currency_code,
        reporting_currency_code as target_currency_code,
        rate_to_reporting as rate,
        rate_status,
        rate_date,
        rate_source_date,
        rate_age_days
    from {{ ref('fct_exchange_rate') }}
    union all
    select
        transaction_key,
        currency_code,
        reporting_currency_code,
        reporting_rate,
        reporting_rate_status,
        business_date,
        reporting_rate_date,
        reporting_rate_age_days
    from {{ ref('fct_sales') }}
    union all
    select
        transaction_key,
        currency_code,
        settlement_currency_code,
        settlement_rate,
        settlement_rate_status,
        business_date,
        settlement_rate_date,
        {{ days_between('settlement_rate_date', 'business_date') }}
    from {{ ref('fct_sales') }}
)

select
    row_key,
    currency_code,
    target_currency_code,
    rate_status
from rates
where
    rate_source_date > rate_date
    or (rate is not null and rate_age_days > {{ maximum_age }})
    or (rate_age_days is not null and rate_age_days != {{ days_between('rate_source_date', 'rate_date') }})
    or (currency_code = target_currency_code and rate_status != 'missing' and coalesce(rate, 0) != 1)
    or (rate is null) != (rate_status in ('stale', 'missing'))
    or rate <= 0
