{#-
  Money is decimal(18,4) in its own currency. These macros are the only ones that scale, divide or convert it.
  Decimal ÷ decimal is a double in DuckDB, so division goes through whole numbers.
-#}

{% macro type_money() -%}
    decimal(18, 4)
{%- endmacro %}

{#- A published quote, as it was published. -#}
{% macro type_quote() -%}
    decimal(18, 8)
{%- endmacro %}

{#- Eighteen decimals: with twelve, a billion rupiah would already be off in the fourth decimal of the euro. -#}
{% macro type_rate() -%}
    decimal(28, 18)
{%- endmacro %}


{#- Text or number as money; null where it is none, is not finite, or does not fit. -#}
{% macro try_to_money(expression) -%}
    {{ try_to(expression, type_money()) }}
{%- endmacro %}


{#-
  `amount` in the smallest unit of its currency, by the ISO 4217 exponent (0, 2, 3 or 4): 12.34 EUR → 1234,
  1000 JPY → 1000. Half a unit rounds away from zero; an unknown exponent gives null, never a guess of 2.
-#}
{% macro to_minor_units(amount, exponent) -%}
    cast(round(
        cast({{ amount }} as decimal(30, 4)) * case {{ exponent }}
            {%- for power in range(5) %}
            when {{ power }} then {{ 10 ** power }}
            {%- endfor %}
        end,
        0
    ) as bigint)
{%- endmacro %}


{#- Whether `amount` has more decimals than its currency; false where the exponent is unknown. -#}
{% macro has_excess_decimals(amount, exponent) -%}
    coalesce(
        mod(cast({{ amount }} * 10000 as decimal(38, 0)), case {{ exponent }}
            {%- for power in range(5) %}
            when {{ power }} then {{ 10 ** (4 - power) }}
            {%- endfor %}
        end) != 0,
        false
    )
{%- endmacro %}


{#-
  `amount` at `rate` (units of the target currency for one unit of the amount's), as money: the exact product,
  rounded once, half away from zero, at the four decimals in which money is kept. A null rate gives null: whoever
  publishes the amount publishes the rate's status beside it.
  100 USD at 1 ÷ 1.0811 = 0.924983812783276293 → 92.4984 EUR.
-#}
{% macro convert_money(amount, rate) -%}
    cast(round(cast({{ amount }} as {{ type_money() }}) * cast({{ rate }} as {{ type_rate() }}), 4) as {{ type_money() }})
{%- endmacro %}


{#-
  `numerator` ÷ `denominator` as a rate, exact to its last decimal (half rounds away from zero). Both are positive
  quotes with at most eight decimals and ten digits before them; anything else gives null.
  Whole-number arithmetic, since (a - a mod b) ÷ b has no remainder to lose: 1 ÷ 1.0811 is the same 18 decimals on
  every engine and on paper.
-#}
{% macro divide_quotes(numerator, denominator) -%}
    {{ return(adapter.dispatch('divide_quotes')(numerator, denominator)) }}
{%- endmacro %}

{% macro default__divide_quotes(numerator, denominator) -%}
    {%- set top = '(cast(cast(' ~ numerator ~ ' as decimal(30, 8)) * 100000000 as decimal(38, 0)) * 1000000000000000000)' -%}
    {%- set bottom = 'cast(cast(' ~ denominator ~ ' as decimal(30, 8)) * 100000000 as decimal(38, 0))' -%}
    case when {{ denominator }} > 0 then cast(
        cast(
            ({{ top }} * 2 + {{ bottom }} - mod({{ top }} * 2 + {{ bottom }}, {{ bottom }} * 2)) / ({{ bottom }} * 2)
            as decimal(38, 0)
        ) * cast(0.000000000000000001 as decimal(19, 18)) as {{ type_rate() }}
    ) end
{%- endmacro %}

{% macro duckdb__divide_quotes(numerator, denominator) -%}
    {%- set top = 'cast(cast(' ~ numerator ~ ' as decimal(30, 8)) * 100000000 as hugeint) * 1000000000000000000' -%}
    {%- set bottom = 'cast(cast(' ~ denominator ~ ' as decimal(30, 8)) * 100000000 as hugeint)' -%}
    case when {{ denominator }} > 0 then cast(
        cast(({{ top }} * 2 + {{ bottom }}) // ({{ bottom }} * 2) as decimal(38, 0))
        * cast(0.000000000000000001 as decimal(19, 18)) as {{ type_rate() }}
    ) end
{%- endmacro %}
