{#-
  Of the rows of a group that say anything (`value` is not null), what the one with the highest `rank` says. One hash
  aggregate for any number of values, where a window for each would sort the rows anew. `rank` must be total, or the
  engines may choose differently.
-#}
{% macro value_at_highest(value, rank) -%}
    max_by({{ value }}, case when {{ value }} is not null then {{ rank }} end)
{%- endmacro %}

{#-
  Of the texts of a group, the one of the latest row: `rank` is an `instant_text`. Of two at the same instant the greater
  one. The rank and the text are one value, of which an engine keeps a single one per group: of `max_by` it keeps two,
  and for the millions of groups of a large company they do not fit into memory.
-#}
{% macro text_at_latest(value, rank) -%}
    substr(max({{ rank }} || {{ value }}), 20)
{%- endmacro %}

{#-
  Nineteen digits that sort as the instant does. Instants before the year 1 or after 9999, which only a broken clock
  writes, count as those bounds: their microseconds would not fit.
-#}
{% macro instant_text(instant) -%}
    {%- set bounded = 'greatest(least(' ~ instant ~ ', ' ~ utc('9999-12-31') ~ '), ' ~ utc('0001-01-01') ~ ')' -%}
    cast(2000000000000000000 + {{ utc_microseconds(bounded) }} as {{ type_text() }})
{%- endmacro %}
