-- Gross − fee = net to the last decimal, in original, settlement and reporting currency.
{{ config(tags=['invariant'], meta={'invariant': 8}) }}
{%- set currencies = ['', '_settlement', '_reporting'] %}
{%- for currency in currencies %}
select
    transaction_key,
    'net_amount{{ currency }}' as measure
from {{ ref('fct_sales') }}
where
    gross_amount{{ currency }} - fee_amount{{ currency }} != net_amount{{ currency }}
    or (gross_amount{{ currency }} is null) != (net_amount{{ currency }} is null)
{{ 'union all' if not loop.last }}
{%- endfor %}
