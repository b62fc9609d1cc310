-- fct_sales holds exactly the payments of int_transactions_unified, and converts exactly those amounts whose rate it
-- knows.
{{ config(tags=['invariant'], meta={'invariant': 22}) }}
select
    unified.transaction_key,
    'payment is missing in fct_sales' as finding
from {{ ref('int_transactions_unified') }} as unified
left join {{ ref('fct_sales') }} as sales on unified.transaction_key = sales.transaction_key
where sales.transaction_key is null
union all
select
    sales.transaction_key,
    'fct_sales has a payment of its own' as finding
from {{ ref('fct_sales') }} as sales
left join {{ ref('int_transactions_unified') }} as unified on sales.transaction_key = unified.transaction_key
where unified.transaction_key is null
{%- for target in ['settlement', 'reporting'] %}
union all
select
    transaction_key,
    'amount_{{ target }} does not follow from amount and rate' as finding
from {{ ref('fct_sales') }}
where
    (amount_{{ target }} is null) != (amount is null or {{ target }}_rate is null)
    or amount_{{ target }} != {{ convert_money('amount', target ~ '_rate') | indent(4) }}
{%- endfor %}
