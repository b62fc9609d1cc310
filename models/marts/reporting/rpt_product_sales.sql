-- One row per product, month and currency: units and money of what was sold that month, as is known now.
with

sales as (
    select
        transaction_key,
        product_key,
        customer_key,
        currency_key,
        business_date,
        currency_code,
        reporting_currency_code,
        quantity,
        gross_amount,
        gross_amount_reporting,
        tax,
        reporting_rate
    from {{ ref('fct_sales') }}
    where
        is_ever_captured
        and business_date is not null
        and product_key <> '{{ var("not_applicable_key") }}'
),

-- most payments are neither refunded nor disputed: a join with those that are is a join with few
milestones as (
    select
        transaction_key,
        refunded_amount,
        dispute_opened_at
    from {{ ref('int_transaction_milestones') }}
    where
        refunded_amount <> 0
        or dispute_opened_at is not null
),

products as (
    select
        product_key,
        merchant_key,
        product_id,
        product_name,
        category
    from {{ ref('dim_product') }}
),

dates as (
    select
        date_key,
        date_day
    from {{ ref('dim_date') }}
),

payments as (
    select
        sales.product_key,
        sales.customer_key,
        sales.currency_key,
        cast({{ dbt.date_trunc('month', 'sales.business_date') }} as date) as month_start,
        coalesce(sales.currency_code, 'unknown') as currency_code,
        sales.reporting_currency_code,
        sales.quantity,
        sales.gross_amount,
        sales.gross_amount_reporting,
        sales.tax,
        coalesce(milestones.refunded_amount, 0) as refunded_amount,
        {{ convert_money('coalesce(milestones.refunded_amount, 0)', 'sales.reporting_rate') }}
            as refunded_amount_reporting,
        milestones.dispute_opened_at is not null as is_disputed
    from sales
    left join milestones on sales.transaction_key = milestones.transaction_key
),

totals as (
    select
        product_key,
        currency_key,
        month_start,
        currency_code,
        reporting_currency_code,
        count(*) as sales_count,
        sum(quantity) as units,
        sum(case when refunded_amount > 0 then 1 else 0 end) as refunded_count,
        sum(case when is_disputed then 1 else 0 end) as disputed_count,
        sum(case when gross_amount is not null and gross_amount_reporting is null then 1 else 0 end)
            as unconverted_count,
        count(distinct customer_key) as customers_count,
        sum(gross_amount) as captured_amount,
        sum(tax) as tax_amount,
        sum(refunded_amount) as refunded_amount,
        sum(gross_amount_reporting) as captured_amount_reporting,
        sum(refunded_amount_reporting) as refunded_amount_reporting
    from payments
    group by product_key, currency_key, month_start, currency_code, reporting_currency_code
),

final as (
    select
        {{ hash_key(['totals.product_key', 'totals.month_start', 'totals.currency_code']) }} as product_sales_key,
        totals.product_key,
        coalesce(products.merchant_key, '{{ var("unknown_key") }}') as merchant_key,
        totals.currency_key,
        coalesce(dates.date_key, {{ var('unknown_key') }}) as month_date_key,
        products.product_id,
        products.product_name,
        products.category,
        totals.currency_code,
        totals.reporting_currency_code,
        cast(totals.sales_count as bigint) as captured_transactions,
        cast(coalesce(totals.units, 0) as bigint) as units,
        cast(totals.refunded_count as bigint) as refunded_transactions,
        cast(totals.disputed_count as bigint) as disputed_transactions,
        cast(totals.unconverted_count as bigint) as unconverted_transactions,
        cast({{ suppress_small_groups('totals.customers_count', 'totals.customers_count') }} as bigint) as customers,
        cast(coalesce(totals.captured_amount, 0) as decimal(38, 4)) as captured_amount,
        cast(totals.tax_amount as decimal(38, 4)) as tax_amount,
        cast(totals.refunded_amount as decimal(38, 4)) as refunded_amount,
        cast(totals.captured_amount_reporting as decimal(38, 4)) as captured_amount_reporting,
        cast(totals.refunded_amount_reporting as decimal(38, 4)) as refunded_amount_reporting,
        totals.month_start
    from totals
    left join products on totals.product_key = products.product_key
    left join dates on totals.month_start = dates.date_day
)

select * from final
