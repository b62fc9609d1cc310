-- One row per currency and calendar day of the payments' span: the last published rate, its age and whether it counts.
{%- set reporting_currency = var('reporting_currency') %}
with

transactions as (
    select
        currency_code,
        business_date,
        loaded_at
    from {{ ref('int_transactions_unified') }}
),

events as (
    select occurred_at
    from {{ ref('int_payment_events_deduped') }}
),

currencies as (
    select currency_code
    from {{ ref('stg_oltp__currency') }}
),

published as (
    select
        currency_code,
        rate_date,
        rate_to_reporting,
        loaded_at,
        -- the newest rate holds until a newer one: a date instead of null, so that the join below is one of ranges
        coalesce(
            lead(rate_date) over (partition by currency_code order by rate_date),
            cast('9999-12-31' as date)
        ) as next_rate_date
    from {{ ref('int_exchange_rates_published') }}
),

transaction_span as (
    select
        min(business_date) as first_date,
        max(business_date) as last_date,
        max(loaded_at) as last_loaded_at
    from transactions
),

event_span as (
    select max(occurred_at) as last_occurred_at from events
),

-- refunds and disputes come after the last sale. A clock that runs years ahead must not add a row for every day of
-- them, so nothing lies beyond the day after the last landing
bounds as (
    select
        transaction_span.first_date,
        least(
            greatest(
                transaction_span.last_date,
                coalesce({{ utc_date('event_span.last_occurred_at') }}, transaction_span.last_date)
            ),
            {{ utc_date('transaction_span.last_loaded_at') }}
        ) as last_date
    from transaction_span
    cross join event_span
),

all_currencies as (
    select currency_code from currencies
    union
    select currency_code from transactions
    union
    select currency_code from published
    union
    select '{{ reporting_currency }}' as currency_code
),

spine as (
    select
        all_currencies.currency_code,
        days.date_day as rate_date
    from {{ date_rows('bounds', 'first_date', 'last_date') | indent(4) }}
    cross join all_currencies
    where all_currencies.currency_code is not null
),

-- forward only: Saturday knows Friday's rate and must not know Monday's
latest as (
    select
        spine.currency_code,
        spine.rate_date,
        published.rate_date as rate_source_date,
        published.rate_to_reporting as published_rate,
        {{ days_between('published.rate_date', 'spine.rate_date') }} as rate_age_days,
        published.loaded_at
    from spine
    left join published
        on
            spine.currency_code = published.currency_code
            and spine.rate_date >= published.rate_date
            and spine.rate_date < published.next_rate_date
),

judged as (
    select
        currency_code,
        rate_date,
        rate_source_date,
        published_rate,
        rate_age_days,
        loaded_at,
        case
            when currency_code = '{{ reporting_currency }}' then 'identity'
            when rate_source_date is null then 'missing'
            when rate_age_days = 0 then 'exact'
            when rate_age_days <= {{ var('exchange_rate_max_age_days') }} then 'filled'
            else 'stale'
        end as rate_status
    from latest
),

-- a stale rate is shown by its date and age, and is not used
final as (
    select
        currency_code,
        rate_date,
        '{{ reporting_currency }}' as reporting_currency_code,
        case
            when rate_status = 'identity' then cast(1 as {{ type_rate() }})
            when rate_status in ('exact', 'filled') then published_rate
        end as rate_to_reporting,
        rate_status,
        case when rate_status = 'identity' then 0 else rate_age_days end as rate_age_days,
        case when rate_status = 'identity' then rate_date else rate_source_date end as rate_source_date,
        loaded_at
    from judged
)

select * from final
