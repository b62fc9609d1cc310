-- One row per month of first purchase and number of months since: how many of those customers bought again.
{%- set no_member = quoted([var('unknown_key'), var('not_applicable_key'), var('erased_key')]) %}
with

purchases as (
    select
        customer_key,
        cast({{ dbt.date_trunc('month', 'business_date') }} as date) as month_start,
        count(*) as purchases_count,
        sum(gross_amount_reporting) as captured_amount_reporting,
        sum(case when gross_amount is not null and gross_amount_reporting is null then 1 else 0 end)
            as unconverted_count
    from {{ ref('fct_sales') }}
    where
        is_ever_captured
        and business_date is not null
        and customer_key not in ({{ no_member }})
    group by customer_key, {{ dbt.date_trunc('month', 'business_date') }}
),

first_purchases as (
    select
        customer_key,
        min(month_start) as cohort_month
    from purchases
    group by customer_key
),

cohorts as (
    select
        cohort_month,
        count(*) as cohort_size
    from first_purchases
    group by cohort_month
),

bounds as (
    select max(month_start) as last_month
    from purchases
),

dates as (
    select
        date_key,
        date_day
    from {{ ref('dim_date') }}
    where day_of_month = 1
),

-- every month up to the last one, also those in which nobody came back
grid as (
    select
        cohorts.cohort_month,
        cohorts.cohort_size,
        dates.date_day as month_start,
        (extract(year from dates.date_day) - extract(year from cohorts.cohort_month)) * 12
        + extract(month from dates.date_day) - extract(month from cohorts.cohort_month) as months_since
    from cohorts
    cross join bounds
    inner join dates
        on
            cohorts.cohort_month <= dates.date_day
            and bounds.last_month >= dates.date_day
),

activity as (
    select
        first_purchases.cohort_month,
        purchases.month_start,
        count(*) as active_count,
        sum(purchases.purchases_count) as purchases_count,
        sum(purchases.unconverted_count) as unconverted_count,
        sum(purchases.captured_amount_reporting) as captured_amount_reporting
    from purchases
    inner join first_purchases on purchases.customer_key = first_purchases.customer_key
    group by first_purchases.cohort_month, purchases.month_start
),

-- what fewer than ten customers did is not shown, nor that nobody did; nor what would tell of the few who did not
counted as (
    select
        grid.cohort_month,
        grid.month_start,
        grid.months_since,
        grid.cohort_size,
        activity.active_count,
        activity.purchases_count,
        activity.unconverted_count,
        activity.captured_amount_reporting,
        case when grid.cohort_size - activity.active_count between 1 and 9 then 0 else activity.active_count end
            as group_size
    from grid
    left join activity
        on
            grid.cohort_month = activity.cohort_month
            and grid.month_start = activity.month_start
),

final as (
    select
        {{ hash_key(['counted.cohort_month', 'counted.months_since']) }} as cohort_retention_key,
        coalesce(dates.date_key, {{ var('unknown_key') }}) as cohort_date_key,
        '{{ var("reporting_currency") }}' as reporting_currency_code,
        cast(counted.months_since as integer) as months_since,
        {%- for name, measure in {
            'active_customers': 'active_count',
            'captured_transactions': 'purchases_count',
            'unconverted_transactions': 'unconverted_count',
        }.items() %}
        cast({{ suppress_small_groups('counted.' ~ measure, 'counted.group_size') }} as bigint) as {{ name }},
        {%- endfor %}
        cast({{ suppress_small_groups('counted.cohort_size', 'counted.cohort_size') }} as bigint) as cohort_customers,
        cast(
            {{ suppress_small_groups('counted.captured_amount_reporting', 'counted.group_size') }} as decimal(38, 4)
        ) as captured_amount_reporting,
        counted.cohort_month,
        counted.month_start
    from counted
    left join dates on counted.cohort_month = dates.date_day
)

select * from final
