-- No original amount has more decimals than its currency has (ISO 4217): no half yen, no tenth of a cent.
{{ config(tags=['invariant'], meta={'invariant': 10}) }}
{%- for measure in ['amount', 'tax'] %}
select
    transaction_key,
    '{{ measure }}' as measure,
    currency_code,
    currency_exponent
from {{ ref('fct_sales') }}
where cast({{ to_minor_units(measure, 'currency_exponent') | indent(4) }} as decimal(30, 4)) != cast(
    {{ measure }} as decimal(30, 4)
) * case currency_exponent
    {%- for exponent in range(5) %}
    when {{ exponent }} then {{ 10 ** exponent }}
    {%- endfor %}
end
{{ 'union all' if not loop.last }}
{%- endfor %}
