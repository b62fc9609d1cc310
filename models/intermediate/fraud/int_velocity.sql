-- One row per payment: how many payments the same customer, device, card and merchant had made strictly before it.
-- What changes for one payment changes the counts of those in whose windows it stands: a run compares the payments with
-- what was counted, and counts again for their members and the days that their windows reach
{{ config(
    materialized='incremental',
    incremental_strategy='delete+insert',
    unique_key='transaction_key',
    post_hook="{{ remove_uncounted('int_transactions_unified') }}",
) }}
{%- set members = {
    'customer': 'customer_id',
    'device': 'device_id',
    'payment_method': 'payment_method_id',
    'merchant': 'merchant_id',
} %}
{%- set counted_columns = (members.values() | list) + ['amount_reporting', 'event_at_utc'] %}
{%- set payments = 'recounted' if is_incremental() else 'converted' %}
with

transactions as (
    select
        transaction_key,
        source_system,
        customer_id,
        device_id,
        payment_method_id,
        merchant_id,
        currency_code,
        amount,
        business_date,
        event_at_utc,
        loaded_at
    from {{ ref('int_transactions_unified') }}
),

rates as (
    select
        currency_code,
        rate_date,
        rate_to_reporting
    from {{ ref('int_exchange_rates_filled') }}
),

-- yen and euros are never added: sums are in reporting currency, and a payment without a rate adds nothing to them
converted as (
    select
        transactions.transaction_key,
        transactions.source_system,
        transactions.customer_id,
        transactions.device_id,
        transactions.payment_method_id,
        transactions.merchant_id,
        {{ convert_money('transactions.amount', 'rates.rate_to_reporting') }} as amount_reporting,
        {{ utc_microseconds('transactions.event_at_utc') }} as moment,
        {{ utc_date('transactions.event_at_utc') }} as day_of_moment,
        transactions.event_at_utc,
        transactions.loaded_at
    from transactions
    left join rates
        on
            transactions.currency_code = rates.currency_code
            and transactions.business_date = rates.rate_date
),

{% if is_incremental() -%}
counted as (
    select
        transaction_key,
        {%- for column in counted_columns %}
        {{ column }},
        {%- endfor %}
        {{ utc_date('event_at_utc') }} as day_of_moment
    from {{ this }}
),

-- what is new, what is gone, and what is not any more as it was counted
changed as (
    select
        converted.transaction_key,
        {%- for column in members.values() %}
        converted.{{ column }},
        counted.{{ column }} as counted_{{ column }},
        {%- endfor %}
        converted.day_of_moment,
        counted.day_of_moment as counted_day_of_moment
    from converted
    full outer join counted on converted.transaction_key = counted.transaction_key
    where
        converted.transaction_key is null
        or counted.transaction_key is null
        {%- for column in counted_columns %}
        or converted.{{ column }} is distinct from counted.{{ column }}
        {%- endfor %}
),

window_days as (
    {%- for day in range(velocity_window_days() + 1) %}
    select {{ day }} as days
    {{ 'union all' if not loop.last }}
    {%- endfor %}
),

changed_days as (
    select changed.day_of_moment
    from changed
    where changed.day_of_moment is not null
    union
    select changed.counted_day_of_moment
    from changed
    where changed.counted_day_of_moment is not null
),

-- those who may see a changed one, and those whom they see: joined by member below, which all payments need not be
nearby as (
    select converted.*
    from converted
    where
        converted.day_of_moment in (
            {%- for sign in ['', '-'] %}
            select cast({{ dbt.dateadd('day', sign ~ 'window_days.days', 'changed_days.day_of_moment') }} as date)
            from changed_days
            cross join window_days
            {{ 'union' if not loop.last }}
            {%- endfor %}
        )
),

-- whose payments of which days may see a changed one, as it is or as it was
{%- for member, column in members.items() %}
changed_{{ member }}_days as (
    {%- for prefix in ['', 'counted_'] %}
    select
        changed.{{ prefix }}{{ column }} as member_id,
        cast({{ dbt.dateadd('day', 'window_days.days', 'changed.' ~ prefix ~ 'day_of_moment') }} as date)
            as day_of_moment
    from changed
    cross join window_days
    where {{ names_a_member('changed.' ~ prefix ~ column) }}
    {{ 'union' if not loop.last }}
    {%- endfor %}
),

{% endfor -%}
recounted_keys as (
    select transaction_key
    from changed
    where transaction_key is not null
    {%- for member, column in members.items() %}

    union

    select nearby.transaction_key
    from nearby
    inner join changed_{{ member }}_days as changed_days
        on
            nearby.{{ column }} = changed_days.member_id
            and nearby.day_of_moment = changed_days.day_of_moment
    {%- endfor %}
),

recounted as (
    select nearby.*
    from nearby
    inner join recounted_keys on nearby.transaction_key = recounted_keys.transaction_key
),

-- and what those see
{%- for member, column in members.items() %}
{{ member }}_days as (
    select distinct
        recounted.{{ column }} as member_id,
        cast({{ dbt.dateadd('day', '-window_days.days', 'recounted.day_of_moment') }} as date) as day_of_moment
    from recounted
    cross join window_days
    where {{ names_a_member('recounted.' ~ column) }}
),

{{ member }}_payments as (
    select
        nearby.transaction_key,
        nearby.{{ column }},
        nearby.amount_reporting,
        nearby.moment
    from nearby
    inner join {{ member }}_days as days
        on
            nearby.{{ column }} = days.member_id
            and nearby.day_of_moment = days.day_of_moment
),

{% endfor -%}
{%- endif %}
{%- for member, column in members.items() -%}
seen_by_{{ member }} as (
    {{ payments_before(member ~ '_payments' if is_incremental() else 'converted', column) | indent(4) }}
),

{% endfor -%}
-- where the source names no device or card there is nothing to count: null, not zero
final as (
    select
        payments.transaction_key,
        payments.source_system,
        {%- for column in members.values() %}
        payments.{{ column }},
        {%- endfor %}
        '{{ var("reporting_currency") }}' as reporting_currency_code,
        payments.amount_reporting,
        {%- for member in members %}
        {%- for name in velocity_windows() %}
        cast(seen_by_{{ member }}.payments_{{ name }} as bigint) as {{ member }}_payments_{{ name }},
        cast(
            coalesce(
                seen_by_{{ member }}.amount_{{ name }},
                case when seen_by_{{ member }}.payments_{{ name }} = 0 then 0 end
            ) as decimal(38, 4)
        ) as {{ member }}_amount_{{ name }},
        {%- endfor %}
        {%- endfor %}
        payments.event_at_utc,
        payments.loaded_at
    from {{ payments }} as payments
    left join seen_by_customer on payments.transaction_key = seen_by_customer.transaction_key
    left join seen_by_device on payments.transaction_key = seen_by_device.transaction_key
    left join seen_by_payment_method on payments.transaction_key = seen_by_payment_method.transaction_key
    left join seen_by_merchant on payments.transaction_key = seen_by_merchant.transaction_key
)

select * from final
