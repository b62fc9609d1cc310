-- One row per merchant, month and currency: what its payments of that month came to, as is known now.
with

sales as (
    select
        transaction_key,
        merchant_key,
        customer_key,
        currency_key,
        business_date,
        currency_code,
        reporting_currency_code,
        gross_amount,
        gross_amount_reporting,
        fee_amount,
        fee_amount_reporting,
        reporting_rate,
        is_ever_captured
    from {{ ref('fct_sales') }}
    where business_date is not null
),

-- most payments are neither refunded nor disputed nor fraud: a join with those that are is a join with few
milestones as (
    select
        transaction_key,
        refunded_amount,
        dispute_lost_amount,
        dispute_opened_at
    from {{ ref('int_transaction_milestones') }}
    where
        refunded_amount != 0
        or dispute_lost_amount != 0
        or dispute_opened_at is not null
),

fraud as (
    select
        transaction_key,
        is_confirmed_fraud
    from {{ ref('fct_fraud') }}
    where is_confirmed_fraud
),

-- several comments on one payment are one payment with several ratings
feedback as (
    select
        transaction_key,
        count(rating) as ratings_count,
        sum(rating) as ratings_sum
    from {{ ref('fct_feedback') }}
    where transaction_key is not null
    group by transaction_key
),

merchants as (
    select
        merchant_key,
        merchant_id,
        trade_name,
        merchant_category_group,
        country_code,
        risk_tier
    from {{ ref('dim_merchant') }}
),

dates as (
    select
        date_key,
        date_day
    from {{ ref('dim_date') }}
),

payments as (
    select
        sales.merchant_key,
        sales.customer_key,
        sales.currency_key,
        cast({{ dbt.date_trunc('month', 'sales.business_date') }} as date) as month_start,
        coalesce(sales.currency_code, 'unknown') as currency_code,
        sales.reporting_currency_code,
        sales.is_ever_captured,
        sales.gross_amount,
        sales.gross_amount_reporting,
        sales.fee_amount,
        sales.fee_amount_reporting,
        sales.reporting_rate,
        coalesce(milestones.refunded_amount, 0) as refunded_amount,
        coalesce(milestones.dispute_lost_amount, 0) as dispute_lost_amount,
        milestones.dispute_opened_at is not null as is_disputed,
        coalesce(fraud.is_confirmed_fraud, false) as is_confirmed_fraud,
        feedback.ratings_count,
        feedback.ratings_sum
    from sales
    left join milestones on sales.transaction_key = milestones.transaction_key
    left join fraud on sales.transaction_key = fraud.transaction_key
    left join feedback on sales.transaction_key = feedback.transaction_key
),

priced as (
    select
        *,
        {{ convert_money('refunded_amount', 'reporting_rate') }} as refunded_amount_reporting,
        {{ convert_money('dispute_lost_amount', 'reporting_rate') }} as dispute_lost_amount_reporting
    from payments
),

totals as (
    select
        merchant_key,
        currency_key,
        month_start,
        currency_code,
        reporting_currency_code,
        {%- for measure in ['gross_amount', 'refunded_amount', 'dispute_lost_amount', 'fee_amount'] %}
        sum(case when is_ever_captured then {{ measure }} end) as {{ measure }},
        sum(case when is_ever_captured then {{ measure }}_reporting end) as {{ measure }}_reporting,
        {%- endfor %}
        count(*) as payments_count,
        sum(case when is_ever_captured then 1 else 0 end) as captured_count,
        sum(case when is_ever_captured and refunded_amount > 0 then 1 else 0 end) as refunded_count,
        sum(case when is_ever_captured and is_disputed then 1 else 0 end) as disputed_count,
        sum(case when is_confirmed_fraud then 1 else 0 end) as confirmed_fraud_count,
        sum(
            case when is_ever_captured and gross_amount is not null and gross_amount_reporting is null then 1 else 0 end
        ) as unconverted_count,
        count(distinct customer_key) as customers_count,
        sum(coalesce(ratings_count, 0)) as ratings_count,
        sum(coalesce(ratings_sum, 0)) as ratings_sum
    from priced
    group by merchant_key, currency_key, month_start, currency_code, reporting_currency_code
),

-- where nothing was captured a sum is zero; of what could not be converted at all it is unknown
summed as (
    select
        *,
        cast(coalesce(gross_amount, 0) as decimal(38, 4)) as captured_amount,
        cast(coalesce(refunded_amount, 0) as decimal(38, 4)) as refunded_total,
        cast(coalesce(dispute_lost_amount, 0) as decimal(38, 4)) as dispute_lost_total,
        cast(coalesce(fee_amount, 0) as decimal(38, 4)) as fee_total,
        cast(coalesce(gross_amount_reporting, case when unconverted_count = 0 then 0 end) as decimal(38, 4))
            as captured_amount_reporting,
        cast(coalesce(refunded_amount_reporting, case when unconverted_count = 0 then 0 end) as decimal(38, 4))
            as refunded_total_reporting,
        cast(coalesce(dispute_lost_amount_reporting, case when unconverted_count = 0 then 0 end) as decimal(38, 4))
            as dispute_lost_total_reporting,
        cast(coalesce(fee_amount_reporting, case when unconverted_count = 0 then 0 end) as decimal(38, 4))
            as fee_total_reporting
    from totals
),

final as (
    select
        {{ hash_key(['summed.merchant_key', 'summed.month_start', 'summed.currency_code']) }} as merchant_overview_key,
        summed.merchant_key,
        summed.currency_key,
        coalesce(dates.date_key, {{ var('unknown_key') }}) as month_date_key,
        merchants.merchant_id,
        merchants.trade_name,
        merchants.merchant_category_group,
        merchants.country_code,
        merchants.risk_tier,
        summed.currency_code,
        summed.reporting_currency_code,
        cast(summed.payments_count as bigint) as transactions, -- noqa: RF04
        cast(summed.captured_count as bigint) as captured_transactions,
        cast(summed.refunded_count as bigint) as refunded_transactions,
        cast(summed.disputed_count as bigint) as disputed_transactions,
        cast(summed.confirmed_fraud_count as bigint) as confirmed_fraud_transactions,
        cast(summed.unconverted_count as bigint) as unconverted_transactions,
        cast({{ suppress_small_groups('summed.customers_count', 'summed.customers_count') }} as bigint) as customers,
        cast(summed.ratings_count as bigint) as ratings,
        cast(summed.ratings_sum as bigint) as ratings_sum,
        summed.captured_amount,
        summed.refunded_total as refunded_amount,
        summed.dispute_lost_total as dispute_lost_amount,
        summed.fee_total as fee_amount,
        cast(summed.captured_amount - summed.refunded_total - summed.dispute_lost_total as decimal(38, 4))
            as net_volume,
        summed.captured_amount_reporting,
        summed.refunded_total_reporting as refunded_amount_reporting,
        summed.dispute_lost_total_reporting as dispute_lost_amount_reporting,
        summed.fee_total_reporting as fee_amount_reporting,
        cast(
            summed.captured_amount_reporting - summed.refunded_total_reporting - summed.dispute_lost_total_reporting
            as decimal(38, 4)
        ) as net_volume_reporting,
        summed.month_start
    from summed
    left join merchants on summed.merchant_key = merchants.merchant_key
    left join dates on summed.month_start = dates.date_day
)

select * from final
