-- No original amount has more decimals than its currency has (ISO 4217): no half yen, no tenth of a cent. What a source
-- booked so all the same is kept as it is, and int_payment_issues names it.
{{ config(tags=['invariant'], meta={'invariant': 10}) }}
with

flagged as (
    select
        source_system,
        natural_id
    from {{ ref('int_payment_issues') }}
    where issue = 'more_decimals_than_the_currency'
)

select
    sales.transaction_key,
    sales.currency_code
from {{ ref('fct_sales') }} as sales
left join flagged
    on
        sales.source_system = flagged.source_system
        and sales.transaction_id = flagged.natural_id
where
    flagged.natural_id is null
    and (
        {{ has_excess_decimals('sales.amount', 'sales.currency_exponent') | indent(8) }}
        or {{ has_excess_decimals('sales.tax', 'sales.currency_exponent') | indent(8) }}
    )
