-- One row per currency of a payment, currency of settlement and day of a payment: the rate between the two.
{%- set usable = quoted(['identity', 'exact', 'filled']) %}
with

days as (
    select distinct
        currency_code,
        business_date
    from {{ ref('int_transactions_unified') }}
    where
        currency_code is not null
        and business_date is not null
),

settlement_currencies as (
    select distinct settlement_currency_code
    from {{ ref('int_merchant_versions') }}
    where settlement_currency_code is not null
),

-- the rates to the reporting currency say which publication counts on a day; the published quotes give it exactly
quotes as (
    select
        filled.currency_code,
        filled.rate_date,
        filled.reporting_currency_code,
        filled.rate_to_reporting,
        filled.rate_status,
        filled.rate_source_date,
        filled.rate_age_days,
        published.base_currency_code,
        published.units_per_base,
        published.reporting_units_per_base
    from {{ ref('int_exchange_rates_filled') }} as filled
    left join {{ ref('int_exchange_rates_published') }} as published
        on
            filled.currency_code = published.currency_code
            and filled.rate_source_date = published.rate_date
),

pairs as (
    select
        days.currency_code,
        settlement_currencies.settlement_currency_code,
        days.business_date as rate_date,
        payment.rate_to_reporting,
        payment.rate_source_date as payment_source_date,
        payment.rate_age_days as payment_age_days,
        payment.base_currency_code as payment_base,
        payment.units_per_base as payment_units,
        settlement.rate_source_date as settlement_source_date,
        settlement.rate_age_days as settlement_age_days,
        settlement.base_currency_code as settlement_base,
        settlement.units_per_base as settlement_units,
        settlement.reporting_units_per_base,
        days.currency_code = settlement_currencies.settlement_currency_code as is_same_currency,
        coalesce(days.currency_code = payment.reporting_currency_code, false) as is_payment_in_reporting,
        coalesce(
            settlement_currencies.settlement_currency_code = settlement.reporting_currency_code, false
        ) as is_settlement_in_reporting,
        coalesce(payment.rate_status, 'missing') as payment_status,
        coalesce(settlement.rate_status, 'missing') as settlement_status
    from days
    cross join settlement_currencies
    left join quotes as payment
        on
            days.currency_code = payment.currency_code
            and days.business_date = payment.rate_date
    left join quotes as settlement
        on
            settlement_currencies.settlement_currency_code = settlement.currency_code
            and days.business_date = settlement.rate_date
),

-- through the common base, from the quotes as published: going through the reporting currency would round twice
crossed as (
    select
        currency_code,
        settlement_currency_code,
        rate_date,
        case
            when is_same_currency then cast(1 as {{ type_rate() }})
            when payment_status not in ({{ usable }}) or settlement_status not in ({{ usable }}) then null
            when is_settlement_in_reporting then rate_to_reporting
            when is_payment_in_reporting
                then {{ divide_quotes('settlement_units', 'reporting_units_per_base') | indent(16) }}
            when payment_base = settlement_base
                then {{ divide_quotes('settlement_units', 'payment_units') | indent(16) }}
        end as rate_to_settlement,
        case
            when is_same_currency then 'identity'
            when 'missing' in (payment_status, settlement_status) then 'missing'
            when 'stale' in (payment_status, settlement_status) then 'stale'
            when 'filled' in (payment_status, settlement_status) then 'filled'
            else 'exact'
        end as worst_status,
        case
            when is_same_currency then rate_date
            else least(payment_source_date, settlement_source_date)
        end as rate_source_date,
        case
            when is_same_currency then 0
            else greatest(payment_age_days, settlement_age_days)
        end as rate_age_days
    from pairs
),

-- two quotes without a common base have no rate either, however fresh they are
final as (
    select
        currency_code,
        settlement_currency_code,
        rate_date,
        rate_to_settlement,
        case
            when rate_to_settlement is null and worst_status in ('exact', 'filled') then 'missing'
            else worst_status
        end as rate_status,
        rate_source_date,
        rate_age_days
    from crossed
)

select * from final
