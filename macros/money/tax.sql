{#-
  The tax inside an amount that includes it, in minor units: amount × rate ÷ (1 + rate), rounded half away from zero.
  The tax is what is rounded; the amount without tax is the rest, so that the two always add up to what was paid.
  2.99 at 4 % → tax 0.115 → 0.12, net 2.87 (rounding the net instead, 2.875 → 2.88, would give 0.11).
  `rate_basis_points` is whole: 4 % is 400. Whole-number arithmetic: a decimal quotient is a double on some engines.
-#}
{% macro included_tax_minor(amount_minor, rate_basis_points) -%}
    {%- set divisor = '((10000 + ' ~ rate_basis_points ~ ') * 2)' -%}
    {%- set dividend = '(abs(' ~ amount_minor ~ ') * ' ~ rate_basis_points ~ ' * 2 + 10000 + ' ~ rate_basis_points ~ ')' -%}
    cast(
        sign({{ amount_minor }}) * (({{ dividend }} - mod({{ dividend }}, {{ divisor }})) / {{ divisor }}) as bigint
    )
{%- endmacro %}
