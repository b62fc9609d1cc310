-- One row per merchant, currency and business day: what the merchant was owed, and what changed it.
{%- set kinds = {
    'captured_amount': 'capture',
    'fee_amount': 'fee',
    'refunded_amount': 'refund',
    'dispute_withdrawn_amount': 'dispute_withdrawal',
    'dispute_returned_amount': 'dispute_return',
    'dispute_fee_amount': 'dispute_fee',
    'payout_amount': 'payout',
    'payout_reversed_amount': 'payout_reversal',
} %}
with

movements as (
    select
        merchant_key,
        currency_key,
        currency_code,
        currency_exponent,
        entry_type,
        amount,
        business_date,
        event_at_utc,
        loaded_at
    from {{ ref('fct_balance_movement') }}
    where ledger_account = 'merchant_balance'
),

dates as (
    select
        date_key,
        date_day
    from {{ ref('dim_date') }}
),

daily as (
    select
        merchant_key,
        currency_code,
        business_date,
        {%- for column, kind in kinds.items() %}
        sum(case when entry_type = '{{ kind }}' then amount else 0 end) as {{ column }},
        {%- endfor %}
        sum(amount) as net_movement_amount,
        count(*) as movements_count,
        max(event_at_utc) as last_event_at,
        max(loaded_at) as loaded_at
    from movements
    group by merchant_key, currency_code, business_date
),

balances as (
    select
        movements.merchant_key,
        movements.currency_code,
        min(movements.currency_key) as currency_key,
        min(movements.currency_exponent) as currency_exponent,
        min(movements.business_date) as first_date
    from movements
    group by movements.merchant_key, movements.currency_code
),

-- the last day that anything is known of; a clock that runs ahead must not add the years up to it
bounds as (
    select
        min(business_date) as first_date,
        least(max(business_date), {{ utc_date('max(loaded_at)') }}) as last_date
    from daily
),

calendar as (
    select days.date_day
    from {{ date_rows('bounds', 'first_date', 'last_date') | indent(4) }}
),

-- every day from the first movement on, and a movement's own day wherever it lies
balance_days as (
    select
        balances.merchant_key,
        balances.currency_code,
        calendar.date_day as business_date
    from balances
    inner join calendar on balances.first_date <= calendar.date_day
    union
    select
        merchant_key,
        currency_code,
        business_date
    from daily
),

filled as (
    select
        balance_days.merchant_key,
        balance_days.currency_code,
        balances.currency_key,
        balances.currency_exponent,
        balance_days.business_date,
        {%- for column in kinds %}
        coalesce(daily.{{ column }}, 0) as {{ column }},
        {%- endfor %}
        coalesce(daily.net_movement_amount, 0) as net_movement_amount,
        coalesce(daily.movements_count, 0) as movements_count,
        daily.last_event_at,
        daily.loaded_at
    from balance_days
    inner join balances
        on
            balance_days.merchant_key = balances.merchant_key
            and balance_days.currency_code = balances.currency_code
    left join daily
        on
            balance_days.merchant_key = daily.merchant_key
            and balance_days.currency_code = daily.currency_code
            and balance_days.business_date = daily.business_date
),

-- a balance stands on all that moved it: what lands late changes every day after it
running as (
    select
        *,
        sum(net_movement_amount) over (
            partition by merchant_key, currency_code
            order by business_date
            rows between unbounded preceding and current row
        ) as closing_amount,
        max(last_event_at) over (
            partition by merchant_key, currency_code
            order by business_date
            rows between unbounded preceding and current row
        ) as updated_at,
        max(loaded_at) over (
            partition by merchant_key, currency_code
            order by business_date
            rows between unbounded preceding and current row
        ) as last_loaded_at
    from filled
),

final as (
    select
        {{ hash_key(['running.merchant_key', 'running.currency_code', date_key('running.business_date')]) | indent(8) }}
            as merchant_balance_key,
        running.merchant_key,
        running.currency_key,
        coalesce(dates.date_key, {{ var('unknown_key') }}) as business_date_key,
        running.currency_code,
        running.currency_exponent,
        cast(running.movements_count as bigint) as movements_count,
        cast(running.closing_amount - running.net_movement_amount as decimal(38, 4)) as opening_amount,
        {%- for column in kinds %}
        cast(running.{{ column }} as decimal(38, 4)) as {{ column }},
        {%- endfor %}
        cast(running.net_movement_amount as decimal(38, 4)) as net_movement_amount,
        cast(running.closing_amount as decimal(38, 4)) as closing_amount,
        running.movements_count > 0 as has_movement,
        running.business_date,
        running.updated_at,
        running.last_loaded_at as loaded_at
    from running
    left join dates on running.business_date = dates.date_day
)

select * from final
