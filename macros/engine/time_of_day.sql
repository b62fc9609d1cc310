{#-
  `local_time_key(instant, zone)`: the minute that the clocks of `zone` showed at `instant`, as hour × 100 + minute
  (1305 is five past one in the afternoon): the key of `dim_time`. A missing zone counts as UTC; null stays null.
-#}
{% macro local_time_key(instant, zone) -%}
    {{ return(adapter.dispatch('local_time_key')(instant, zone)) }}
{%- endmacro %}

{% macro default__local_time_key(instant, zone) -%}
    {%- set local = "from_utc_timestamp(" ~ instant ~ ", coalesce(" ~ zone ~ ", 'UTC'))" -%}
    cast(hour({{ local }}) * 100 + minute({{ local }}) as integer)
{%- endmacro %}

{% macro duckdb__local_time_key(instant, zone) -%}
    {%- set local = "timezone(coalesce(" ~ zone ~ ", 'UTC'), " ~ instant ~ ")" -%}
    cast(extract(hour from {{ local }}) * 100 + extract(minute from {{ local }}) as integer)
{%- endmacro %}

{% macro snowflake__local_time_key(instant, zone) -%}
    {%- set local = "convert_timezone(coalesce(" ~ zone ~ ", 'UTC'), " ~ instant ~ ")" -%}
    cast(extract(hour from {{ local }}) * 100 + extract(minute from {{ local }}) as integer)
{%- endmacro %}
