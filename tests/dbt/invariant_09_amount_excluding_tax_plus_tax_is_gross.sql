-- Amount excluding tax + tax = what the customer was charged, by the declared tax mode (var amount_includes_tax).
{{ config(tags=['invariant'], meta={'invariant': 9}) }}
select
    transaction_key,
    currency_code
from {{ ref('fct_sales') }}
where
    tax is not null
    and amount is not null
    and (
        amount_excluding_tax is null
        or amount_excluding_tax + tax != gross_amount
        or gross_amount != amount {{ '' if var('amount_includes_tax') else '+ tax' }}
    )
