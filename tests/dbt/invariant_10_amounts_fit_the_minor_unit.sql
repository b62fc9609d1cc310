-- No original amount has more decimals than its currency has (ISO 4217): no half yen, no tenth of a cent.
{{ config(tags=['invariant'], meta={'invariant': 10}) }}
with

measures as (
    select
        transaction_key,
        currency_code,
        currency_exponent,
        'amount' as checked_column,
        amount as checked_amount
    from {{ ref('fct_sales') }}
    union all
    select
        transaction_key,
        currency_code,
        currency_exponent,
        'tax' as checked_column,
        tax as checked_amount
    from {{ ref('fct_sales') }}
),

-- minor units are whole: what they lost on the way there was more than the currency can hold
restored as (
    select
        transaction_key,
        currency_code,
        checked_column,
        checked_amount,
        {{ to_minor_units('checked_amount', 'currency_exponent') | indent(8) }} as minor_units,
        case currency_exponent
            {%- for exponent in range(5) %}
            when {{ exponent }} then {{ 10 ** (4 - exponent) }}
            {%- endfor %}
        end as ten_thousandths_per_unit
    from measures
)

select
    transaction_key,
    currency_code,
    checked_column
from restored
where cast(checked_amount * 10000 as decimal(38, 4)) != cast(minor_units as decimal(30, 0)) * ten_thousandths_per_unit
