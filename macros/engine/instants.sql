{#- An instant as whole microseconds since 1970: text forms of timestamps differ between engines, numbers do not. -#}
{% macro utc_microseconds(instant) -%}
    {{ return(adapter.dispatch('utc_microseconds')(instant)) }}
{%- endmacro %}

{% macro default__utc_microseconds(instant) -%}
    unix_micros({{ instant }})
{%- endmacro %}

{% macro duckdb__utc_microseconds(instant) -%}
    epoch_us({{ instant }})
{%- endmacro %}

{% macro snowflake__utc_microseconds(instant) -%}
    date_part(epoch_microsecond, {{ instant }})
{%- endmacro %}
