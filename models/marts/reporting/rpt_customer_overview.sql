-- One row per country, age band and identity status of customers: how many there are and what they buy; no one alone.
{%- set no_member = quoted([var('unknown_key'), var('not_applicable_key'), var('erased_key')]) %}
with

customers as (
    select
        customer_key,
        coalesce(country_code, 'unknown') as country_code,
        coalesce(age_band, 'unknown') as age_band,
        coalesce(kyc_status, 'unknown') as kyc_status,
        coalesce(has_marketing_consent, false) as has_marketing_consent
    from {{ ref('dim_customer') }}
    where
        customer_key not in ({{ no_member }})
        and not is_deleted
),

sales as (
    select
        customer_key,
        business_date,
        gross_amount,
        gross_amount_reporting,
        reporting_currency_code
    from {{ ref('fct_sales') }}
    where
        is_ever_captured
        and customer_key not in ({{ no_member }})
),

countries as (
    select
        country_key,
        country_code
    from {{ ref('dim_country') }}
),

-- active: bought in the ninety days before the last sale of all
last_days as (
    select max(business_date) as last_date
    from sales
),

purchases as (
    select
        sales.customer_key,
        count(*) as purchases_count,
        max(sales.business_date) as last_purchase_date,
        sum(sales.gross_amount_reporting) as captured_amount_reporting,
        sum(case when sales.gross_amount is not null and sales.gross_amount_reporting is null then 1 else 0 end)
            as unconverted_count
    from sales
    group by sales.customer_key
),

segments as (
    select
        customers.country_code,
        customers.age_band,
        customers.kyc_status,
        count(*) as customers_count,
        sum(case when customers.has_marketing_consent then 1 else 0 end) as consenting_count,
        sum(case when purchases.purchases_count >= 1 then 1 else 0 end) as buyers_count,
        sum(case when purchases.purchases_count >= 2 then 1 else 0 end) as repeat_buyers_count,
        sum(
            case
                when {{ days_between('purchases.last_purchase_date', 'last_days.last_date') }} < 90 then 1
                else 0
            end
        ) as active_count,
        sum(coalesce(purchases.purchases_count, 0)) as purchases_count,
        sum(coalesce(purchases.unconverted_count, 0)) as unconverted_count,
        sum(coalesce(purchases.captured_amount_reporting, 0)) as captured_amount_reporting
    from customers
    left join purchases on customers.customer_key = purchases.customer_key
    cross join last_days
    group by customers.country_code, customers.age_band, customers.kyc_status
),

-- a number about fewer than ten is not shown, nor one that would tell of the few others of its segment
{%- set counts = {
    'consenting_customers': 'consenting_count',
    'buyers': 'buyers_count',
    'repeat_buyers': 'repeat_buyers_count',
    'active_customers': 'active_count',
} %}
sized as (
    select
        *,
        {%- for name, measure in counts.items() %}
        case when customers_count - {{ measure }} between 1 and 9 then 0 else {{ measure }} end as {{ name }}_group,
        {%- endfor %}
        '{{ var("reporting_currency") }}' as reporting_currency_code
    from segments
),

final as (
    select
        {{ hash_key(['sized.country_code', 'sized.age_band', 'sized.kyc_status']) }} as customer_overview_key,
        coalesce(countries.country_key, '{{ var("unknown_key") }}') as country_key,
        sized.country_code,
        sized.age_band,
        sized.kyc_status,
        sized.reporting_currency_code,
        cast({{ suppress_small_groups('sized.customers_count', 'sized.customers_count') }} as bigint) as customers,
        {%- for name, measure in counts.items() %}
        cast({{ suppress_small_groups('sized.' ~ measure, 'sized.' ~ name ~ '_group') }} as bigint) as {{ name }},
        {%- endfor %}
        cast({{ suppress_small_groups('sized.purchases_count', 'sized.buyers_group') }} as bigint)
            as captured_transactions,
        cast({{ suppress_small_groups('sized.unconverted_count', 'sized.buyers_group') }} as bigint)
            as unconverted_transactions,
        cast(
            {{ suppress_small_groups('sized.captured_amount_reporting', 'sized.buyers_group') }} as decimal(38, 4)
        ) as captured_amount_reporting
    from sized
    left join countries on sized.country_code = countries.country_code
)

select * from final
