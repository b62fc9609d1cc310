{#- Type names and casts whose spelling differs between engines. -#}

{% macro type_utc_timestamp() -%}
    {{ return(adapter.dispatch('type_utc_timestamp')()) }}
{%- endmacro %}

{% macro default__type_utc_timestamp() -%}
    timestamp
{%- endmacro %}

{% macro duckdb__type_utc_timestamp() -%}
    timestamp with time zone
{%- endmacro %}

{% macro snowflake__type_utc_timestamp() -%}
    timestamp_tz
{%- endmacro %}


{% macro type_text() -%}
    {{ return(adapter.dispatch('type_text')()) }}
{%- endmacro %}

{% macro default__type_text() -%}
    string
{%- endmacro %}

{% macro duckdb__type_text() -%}
    varchar
{%- endmacro %}

{% macro snowflake__type_text() -%}
    varchar
{%- endmacro %}


{#- `expression` as `type`, null where it cannot be: one bad value must not stop a build, nor show up in its error. -#}
{% macro try_to(expression, type) -%}
    try_cast({{ expression }} as {{ type }})
{%- endmacro %}

{#- ISO 8601 text as an instant; null where it is none. -#}
{% macro try_to_utc(expression) -%}
    {{ try_to(expression, type_utc_timestamp()) }}
{%- endmacro %}

{#- An instant written in the code: `utc('1900-01-01')`. -#}
{% macro utc(literal) -%}
    cast('{{ literal }} 00:00:00+00:00' as {{ type_utc_timestamp() }})
{%- endmacro %}
