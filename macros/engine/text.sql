{#- The digits at the end of `expression` when what precedes them is one of `prefixes` (any case); else null. -#}
{% macro number_after_prefix(expression, prefixes) -%}
    {{ return(adapter.dispatch('number_after_prefix')(expression, prefixes)) }}
{%- endmacro %}

{% macro default__number_after_prefix(expression, prefixes) -%}
    nullif(regexp_extract(upper({{ expression }}), '^(?:{{ prefixes | join("|") }})([0-9]+)$', 1), '')
{%- endmacro %}

{% macro snowflake__number_after_prefix(expression, prefixes) -%}
    nullif(regexp_substr(upper({{ expression }}), '^({{ prefixes | join("|") }})([0-9]+)$', 1, 1, 'e', 2), '')
{%- endmacro %}


{#- True when `expression` holds 13 to 19 digits, spaces and dashes allowed between them, that begin as cards do. -#}
{% macro has_long_digit_run(expression) -%}
    {{ return(adapter.dispatch('has_long_digit_run')(expression)) }}
{%- endmacro %}

{% macro default__has_long_digit_run(expression) -%}
    regexp_like({{ expression }}, '(^|[^0-9])[2-6]([ -]?[0-9]){12,18}($|[^0-9])')
{%- endmacro %}

{% macro duckdb__has_long_digit_run(expression) -%}
    regexp_matches({{ expression }}, '(^|[^0-9])[2-6]([ -]?[0-9]){12,18}($|[^0-9])')
{%- endmacro %}

{#- The first such run, digits only. -#}
{% macro long_digit_run(expression) -%}
    {{ return(adapter.dispatch('long_digit_run')(expression)) }}
{%- endmacro %}

{% macro default__long_digit_run(expression) -%}
    regexp_replace(regexp_substr({{ expression }}, '[2-6]([ -]?[0-9]){12,18}'), '[ -]', '')
{%- endmacro %}

{% macro duckdb__long_digit_run(expression) -%}
    regexp_replace(regexp_extract({{ expression }}, '[2-6]([ -]?[0-9]){12,18}'), '[ -]', '', 'g')
{%- endmacro %}
