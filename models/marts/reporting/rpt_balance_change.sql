-- One row per merchant, currency and month: from the opening to the closing balance, by what changed it.
{%- set kinds = [
    'captured_amount',
    'fee_amount',
    'dispute_fee_amount',
    'refunded_amount',
    'dispute_withdrawn_amount',
    'dispute_returned_amount',
    'payout_amount',
    'payout_reversed_amount',
    'net_movement_amount',
] %}
with

balances as (
    select
        merchant_key,
        currency_key,
        business_date_key,
        currency_code,
        movements_count,
        opening_amount,
        {%- for column in kinds %}
        {{ column }},
        {%- endfor %}
        closing_amount,
        business_date
    from {{ ref('fct_merchant_balance_daily') }}
),

dates as (
    select
        date_key,
        first_of_month,
        last_of_month
    from {{ ref('dim_date') }}
),

merchants as (
    select
        merchant_key,
        merchant_id,
        trade_name
    from {{ ref('dim_merchant') }}
),

-- a balance is not summed over days: the month opens as its first day does, and closes as its last
monthly as (
    select
        balances.merchant_key,
        balances.currency_key,
        balances.currency_code,
        dates.first_of_month,
        dates.last_of_month,
        sum(balances.movements_count) as movements_count,
        {{ value_at_highest('balances.opening_amount', '-balances.business_date_key') }} as opening_amount,
        {%- for column in kinds %}
        sum(balances.{{ column }}) as {{ column }},
        {%- endfor %}
        {{ value_at_highest('balances.closing_amount', 'balances.business_date_key') }} as closing_amount,
        min(balances.business_date) as first_date,
        max(balances.business_date) as last_date
    from balances
    inner join dates on balances.business_date_key = dates.date_key
    group by
        balances.merchant_key, balances.currency_key, balances.currency_code, dates.first_of_month, dates.last_of_month
),

final as (
    select
        {{ hash_key(['monthly.merchant_key', 'monthly.currency_code', date_key('monthly.first_of_month')]) }}
            as balance_change_key,
        monthly.merchant_key,
        monthly.currency_key,
        {{ date_key('monthly.first_of_month') }} as month_date_key,
        merchants.merchant_id,
        merchants.trade_name,
        monthly.currency_code,
        cast(monthly.movements_count as bigint) as movements_count,
        cast(monthly.opening_amount as decimal(38, 4)) as opening_amount,
        {%- for column in kinds %}
        cast(monthly.{{ column }} as decimal(38, 4)) as {{ column }},
        {%- endfor %}
        cast(monthly.closing_amount as decimal(38, 4)) as closing_amount,
        monthly.last_date = monthly.last_of_month as is_complete_month,
        monthly.first_of_month as month_start_date,
        monthly.last_date as last_known_date
    from monthly
    inner join merchants on monthly.merchant_key = merchants.merchant_key
)

select * from final
