{#-
  Of the rows of a group that say anything (`value` is not null), what the one with the highest `rank` says. One hash
  aggregate for any number of values, where a window for each would sort the rows anew. `rank` must be total, or the
  engines may choose differently.
-#}
{% macro value_at_highest(value, rank) -%}
    max_by({{ value }}, case when {{ value }} is not null then {{ rank }} end)
{%- endmacro %}

{#-
  A text that sorts as (instant, id) does: nineteen digits, then the id. Instants before the year 1 or after 9999, which
  only a broken clock writes, count as those bounds: their microseconds would not fit.
-#}
{% macro order_text(instant, id) -%}
    {%- set bounded = 'greatest(least(' ~ instant ~ ', ' ~ utc('9999-12-31') ~ '), ' ~ utc('0001-01-01') ~ ')' -%}
    cast(1000000000000000000 + {{ utc_microseconds(bounded) }} as {{ type_text() }}) || {{ id }}
{%- endmacro %}
