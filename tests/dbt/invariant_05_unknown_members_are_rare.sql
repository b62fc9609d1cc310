-- The share of '-1' (named by the source, but not a member) stays under its threshold, for every key of the facts.
-- A small absolute number is allowed beside the share: one orphan among ten payments is no finding.
{{ config(tags=['invariant'], meta={'invariant': 5}) }}
{%- set thresholds = {
    'fct_sales': {
        'customer_key': 0.01,
        'merchant_key': 0.01,
        'product_key': 0.01,
        'payment_method_key': 0.02,
        'device_key': 0.02,
        'location_key': 0.01,
        'country_key': 0.01,
        'currency_key': 0.01,
        'status_key': 0.01,
        'business_date_key': 0.001,
        'captured_date_key': 0.001,
    },
    'fct_exchange_rate': {
        'currency_key': 0.01,
        'date_key': 0.001,
    },
    'fct_refund': {
        'transaction_key': 0.01,
        'merchant_key': 0.01,
        'currency_key': 0.01,
        'business_date_key': 0.001,
    },
    'fct_dispute_event': {
        'transaction_key': 0.01,
        'merchant_key': 0.01,
        'currency_key': 0.01,
        'business_date_key': 0.001,
    },
    'fct_balance_movement': {
        'transaction_key': 0.01,
        'merchant_key': 0.01,
        'currency_key': 0.01,
        'business_date_key': 0.001,
    },
    'fct_settlement': {
        'transaction_key': 0.01,
        'merchant_key': 0.01,
        'currency_key': 0.01,
        'business_date_key': 0.001,
    },
} %}
{%- set tolerated_rows = 10 %}
with

shares as (
    {%- for fact, keys in thresholds.items() %}
    {%- set last_fact = loop.last %}
    {%- for key, threshold in keys.items() %}
    select
        '{{ fact }}.{{ key }}' as fact_key,
        sum(case when cast({{ key }} as {{ type_text() }}) = '{{ var("unknown_key") }}' then 1 else 0 end)
            as unknown_rows,
        count(*) as all_rows,
        {{ threshold }} as threshold
    from {{ ref(fact) }}
    {{ 'union all' if not (last_fact and loop.last) }}
    {%- endfor %}
    {%- endfor %}
)

select
    fact_key,
    unknown_rows,
    all_rows
from shares
where
    unknown_rows > {{ tolerated_rows }}
    and unknown_rows > threshold * all_rows
