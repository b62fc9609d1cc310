-- One row per merchant, currency and business day: what the merchant was owed, and what changed it.
{{ config(
    materialized='incremental',
    incremental_strategy='append',
    pre_hook="{{ remove_changed_balances() }}",
) }}
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
{%- set left_join_standing = '' %}
{%- set and_is_later = '' %}
{%- if is_incremental() %}
{%- set left_join_standing -%}
left join standing
        on
            legs.merchant_key = standing.merchant_key
            and legs.currency_code = standing.currency_code
{%- endset %}
{%- set and_is_later = ' and (standing.business_date is null or legs.business_date > standing.business_date)' %}
{%- endif %}
with

{% if is_incremental() -%}
-- where each balance stood on the last day that is still true: the days after it are added
standing as (
    select
        merchant_key,
        currency_code,
        max(business_date) as business_date,
        min(currency_key) as currency_key,
        min(currency_exponent) as currency_exponent,
        {{ value_at_highest('closing_amount', 'business_date') }} as closing_amount,
        max(updated_at) as updated_at,
        max(loaded_at) as loaded_at
    from {{ this }}
    group by merchant_key, currency_code
),

{% endif -%}
movements as (
    select
        legs.merchant_key,
        legs.currency_key,
        legs.currency_code,
        legs.currency_exponent,
        legs.entry_type,
        legs.amount,
        legs.business_date,
        legs.event_at_utc,
        legs.loaded_at
    from {{ ref('fct_balance_movement') }} as legs
    {{ left_join_standing }}
    where legs.ledger_account = 'merchant_balance'{{ and_is_later }}
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
        business_date as movement_date,
        min(currency_key) as currency_key,
        min(currency_exponent) as currency_exponent,
        {%- for column, kind in kinds.items() %}
        sum(case when entry_type = '{{ kind }}' then amount else 0 end) as {{ column }},
        {%- endfor %}
        sum(amount) as net_movement_amount,
        count(*) as movements_count,
        max(event_at_utc) as last_event_at,
        max(loaded_at) as loaded_at,
        {{ balance_day_version() | indent(8) }} as row_version
    from movements
    group by merchant_key, currency_code, business_date
),

-- the last day that anything is known of; a clock that runs ahead must not add the years up to it
bounds as (
    select
        min(business_date) as first_date,
        least(max(business_date), {{ utc_date('max(loaded_at)') }}) as last_date
    from {{ ref('fct_balance_movement') }}
    where ledger_account = 'merchant_balance'
),

calendar as (
    select days.date_day
    from {{ date_rows('bounds', 'first_date', 'last_date') | indent(4) }}
),

steps as (
    select
        *,
        true as is_movement
    from daily
    {%- if is_incremental() %}

    union all

    select
        merchant_key,
        currency_code,
        business_date as movement_date,
        currency_key,
        currency_exponent,
        {%- for column in kinds %}
        0 as {{ column }},
        {%- endfor %}
        closing_amount as net_movement_amount,
        0 as movements_count,
        updated_at as last_event_at,
        loaded_at,
        null as row_version,
        false as is_movement
    from standing
    {%- endif %}
),

-- a balance stands on all that moved it: what lands late changes every day after it
running as (
    select
        *,
        sum(net_movement_amount) over (
            partition by merchant_key, currency_code
            order by movement_date
            rows between unbounded preceding and current row
        ) as closing_amount,
        max(last_event_at) over (
            partition by merchant_key, currency_code
            order by movement_date
            rows between unbounded preceding and current row
        ) as updated_at,
        max(loaded_at) over (
            partition by merchant_key, currency_code
            order by movement_date
            rows between unbounded preceding and current row
        ) as last_loaded_at,
        coalesce(
            lead(movement_date) over (partition by merchant_key, currency_code order by movement_date),
            cast('9999-12-31' as date)
        ) as next_movement_date
    from steps
),

-- a movement's own day, wherever it lies, and the quiet days after it, on which its balance stands
balance_days as (
    select
        running.*,
        running.movement_date as business_date
    from running
    where running.is_movement

    union all

    select
        running.*,
        calendar.date_day as business_date
    from running
    inner join calendar
        on
            running.movement_date < calendar.date_day
            and running.next_movement_date > calendar.date_day
),

filled as (
    select
        merchant_key,
        currency_code,
        currency_key,
        currency_exponent,
        business_date,
        {%- for column in kinds %}
        case when business_date = movement_date then {{ column }} else 0 end as {{ column }},
        {%- endfor %}
        case when business_date = movement_date then net_movement_amount else 0 end as net_movement_amount,
        case when business_date = movement_date then movements_count else 0 end as movements_count,
        case when business_date = movement_date then row_version end as row_version,
        closing_amount,
        updated_at,
        last_loaded_at
    from balance_days
),

final as (
    select
        {{ hash_key(['filled.merchant_key', 'filled.currency_code', date_key('filled.business_date')]) | indent(8) }}
            as merchant_balance_key,
        filled.merchant_key,
        filled.currency_key,
        coalesce(dates.date_key, {{ var('unknown_key') }}) as business_date_key,
        filled.currency_code,
        filled.currency_exponent,
        filled.row_version,
        cast(filled.movements_count as bigint) as movements_count,
        cast(filled.closing_amount - filled.net_movement_amount as decimal(38, 4)) as opening_amount,
        {%- for column in kinds %}
        cast(filled.{{ column }} as decimal(38, 4)) as {{ column }},
        {%- endfor %}
        cast(filled.net_movement_amount as decimal(38, 4)) as net_movement_amount,
        cast(filled.closing_amount as decimal(38, 4)) as closing_amount,
        filled.movements_count > 0 as has_movement,
        filled.business_date,
        filled.updated_at,
        filled.last_loaded_at as loaded_at
    from filled
    left join dates on filled.business_date = dates.date_day
)

select * from final
