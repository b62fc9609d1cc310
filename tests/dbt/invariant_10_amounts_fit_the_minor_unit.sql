-- No original amount has more decimals than its currency has (ISO 4217): no half yen, no tenth of a cent.
{{ config(tags=['invariant'], meta={'invariant': 10}) }}
with

measures as (
    select
        transaction_key,
        currency_code,
        currency_exponent,
        'amount' as measure,
        amount as money
    from {{ ref('fct_sales') }}
    union all
    select
        transaction_key,
        currency_code,
        currency_exponent,
        'tax' as measure,
        tax as money
    from {{ ref('fct_sales') }}
),

-- minor units are whole: what they lost on the way there was more than the currency can hold
restored as (
    select
        transaction_key,
        currency_code,
        measure,
        money,
        {{ to_minor_units('money', 'currency_exponent') | indent(8) }} as minor_units,
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
    measure
from restored
where cast(money * 10000 as decimal(38, 4)) != cast(minor_units as decimal(30, 0)) * ten_thousandths_per_unit
