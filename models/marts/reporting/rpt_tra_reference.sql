-- One row per day and value band: card fraud of the last 90 days against the rate that allows exemption from SCA.
with

sales as (
    select
        transaction_key,
        payment_method_key,
        business_date_key,
        reporting_currency_code,
        gross_amount,
        gross_amount_reporting
    from {{ ref('fct_sales') }}
    where is_ever_captured
),

fraud as (
    select
        transaction_key,
        is_confirmed_fraud,
        sca_exemption
    from {{ ref('fct_fraud') }}
),

payment_methods as (
    select payment_method_key
    from {{ ref('dim_payment_method') }}
    where method_type in ('card', 'wallet')
),

calendar as (
    select
        date_key,
        date_day
    from {{ ref('dim_date') }}
    where date_day is not null
),

bands as (
    select
        value_up_to_eur,
        formula_version,
        ratio_from_bps as reference_bps,
        valid_from,
        coalesce(valid_to, cast('9999-12-31' as date)) as valid_to
    from {{ ref('scheme_thresholds') }}
    where program = 'TRA'
),

-- by value, all fraud on remote card payments, whoever bears it (RTS 2018/389, articles 18 and 19). Documents name no
-- payment method and stay out
daily as (
    select
        calendar.date_day,
        count(*) as payments,
        sum(sales.gross_amount_reporting) as captured_amount,
        sum(case when fraud.is_confirmed_fraud then 1 else 0 end) as fraud_payments,
        sum(case when fraud.is_confirmed_fraud then sales.gross_amount_reporting end) as fraud_amount,
        sum(case when fraud.sca_exemption = 'transaction_risk_analysis' then 1 else 0 end) as exempted_payments,
        sum(
            case
                when sales.gross_amount is not null and sales.gross_amount_reporting is null then 1
                else 0
            end
        ) as unconverted_payments
    from sales
    inner join payment_methods on sales.payment_method_key = payment_methods.payment_method_key
    inner join calendar on sales.business_date_key = calendar.date_key
    left join fraud on sales.transaction_key = fraud.transaction_key
    group by calendar.date_day
),

span as (
    select
        min(date_day) as first_day,
        max(date_day) as last_day
    from daily
),

-- a day without payments is a day of the window all the same
spine as (
    select
        calendar.date_key,
        calendar.date_day,
        span.first_day,
        coalesce(daily.payments, 0) as payments,
        coalesce(daily.captured_amount, 0) as captured_amount,
        coalesce(daily.fraud_payments, 0) as fraud_payments,
        coalesce(daily.fraud_amount, 0) as fraud_amount,
        coalesce(daily.exempted_payments, 0) as exempted_payments,
        coalesce(daily.unconverted_payments, 0) as unconverted_payments
    from calendar
    inner join span on calendar.date_day between span.first_day and span.last_day
    left join daily on calendar.date_day = daily.date_day
),

rolled as (
    select
        date_key,
        date_day,
        {%- for measure in [
            'payments', 'captured_amount', 'fraud_payments', 'fraud_amount', 'exempted_payments', 'unconverted_payments',
        ] %}
        sum({{ measure }}) over (
            order by date_day
            rows between 89 preceding and current row
        ) as {{ measure }},
        {%- endfor %}
        {{ days_between('first_day', 'date_day') }} >= 89 as is_window_full
    from spine
),

final as (
    select
        rolled.date_key as as_of_date_key,
        bands.value_up_to_eur,
        bands.formula_version,
        '{{ var("reporting_currency") }}' as reporting_currency_code,
        cast(rolled.payments as bigint) as payments_90d,
        cast(rolled.fraud_payments as bigint) as fraud_payments_90d,
        cast(rolled.exempted_payments as bigint) as exempted_payments_90d,
        cast(rolled.unconverted_payments as bigint) as unconverted_payments_90d,
        cast(rolled.captured_amount as decimal(38, 4)) as captured_amount_90d,
        cast(rolled.fraud_amount as decimal(38, 4)) as fraud_amount_90d,
        {{ basis_points('rolled.fraud_amount', 'rolled.captured_amount') | indent(8) }} as fraud_rate_bps,
        bands.reference_bps,
        rolled.captured_amount > 0
        and cast(rolled.fraud_amount as decimal(30, 4)) * 10000
        <= cast(rolled.captured_amount as decimal(30, 4)) * bands.reference_bps as is_within_reference,
        rolled.is_window_full
    from rolled
    inner join bands on rolled.date_day between bands.valid_from and bands.valid_to
)

select * from final
