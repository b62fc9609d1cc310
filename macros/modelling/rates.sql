{#-
  A rate beside its numerator and denominator, never instead of them: exact to its last decimal, half rounds away from
  zero, null where there is nothing to divide by. Both are counts or sums of money of one currency, not negative.
  Whole-number arithmetic, since decimal ÷ decimal is a double in DuckDB: every engine prints the same digits.
-#}
{% macro rate(numerator, denominator, decimals=6) -%}
    case when {{ denominator }} > 0 then cast(
        {{ rounded_quotient(in_ten_thousandths(numerator) ~ ' * ' ~ 10 ** decimals, in_ten_thousandths(denominator)) }}
        * cast({{ '%.*f' % (decimals, 10 ** -decimals) }} as decimal({{ decimals + 1 }}, {{ decimals }}))
        as decimal(18, {{ decimals }})
    ) end
{%- endmacro %}

{#- The same in basis points: 185 of 7,500 are 246.6667; with no decimals, 247. -#}
{% macro basis_points(numerator, denominator, decimals=4) -%}
    {{ rate('(' ~ numerator ~ ') * 10000', denominator, decimals) }}
{%- endmacro %}

{% macro in_ten_thousandths(expression) -%}
    cast(cast({{ expression }} as decimal(30, 4)) * 10000 as decimal(38, 0))
{%- endmacro %}

{% macro rounded_quotient(top, bottom) -%}
    {{ return(adapter.dispatch('rounded_quotient')(top, bottom)) }}
{%- endmacro %}

{% macro default__rounded_quotient(top, bottom) -%}
    cast(
        ({{ top }} * 2 + {{ bottom }} - mod({{ top }} * 2 + {{ bottom }}, {{ bottom }} * 2)) / ({{ bottom }} * 2)
        as decimal(28, 0)
    )
{%- endmacro %}

{% macro duckdb__rounded_quotient(top, bottom) -%}
    cast(
        (cast({{ top }} as hugeint) * 2 + cast({{ bottom }} as hugeint)) // (cast({{ bottom }} as hugeint) * 2)
        as decimal(28, 0)
    )
{%- endmacro %}
