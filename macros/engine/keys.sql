{#-
  `hash_key([expressions])`: md5 text of the parts joined by '|'. A missing part counts as the empty text, so a key
  is never null; text and number spell alike on every engine because each part is cast to text first.
-#}
{% macro hash_key(expressions) -%}
    md5({{ joined_text(expressions) }})
{%- endmacro %}

{% macro joined_text(expressions) -%}
    {%- for expression in expressions -%}
        coalesce(cast({{ expression }} as {{ type_text() }}), ''){{ " || '|' || " if not loop.last }}
    {%- endfor -%}
{%- endmacro %}


{#-
  `fingerprint([expressions])`: a whole number of 64 bits out of the same hash. Number and sum of them tell one set of
  rows from another, whatever order the rows come in.
-#}
{% macro fingerprint(expressions) -%}
    {{ return(adapter.dispatch('fingerprint')(joined_text(expressions))) }}
{%- endmacro %}

{% macro default__fingerprint(text) -%}
    cast(conv(substr(md5({{ text }}), 17), 16, 10) as decimal(20, 0))
{%- endmacro %}

{% macro duckdb__fingerprint(text) -%}
    cast(md5_number_lower({{ text }}) as decimal(20, 0))
{%- endmacro %}

{% macro snowflake__fingerprint(text) -%}
    md5_number_lower64({{ text }})
{%- endmacro %}


{#- `case` written once: {'approved': 'captured'} maps a column; anything else keeps its value, or `default`. -#}
{% macro map_values_of(expression, mapping, default=none) -%}
    case {{ expression }}
        {%- for from_value, to_value in mapping.items() %}
        when '{{ from_value }}' then '{{ to_value }}'
        {%- endfor %}
        else {{ default if default is not none else expression }}
    end
{%- endmacro %}


{#- `'a', 'b'` of a list of names, for `in (...)`. -#}
{% macro quoted(values) -%}
    '{{ values | join("', '") }}'
{%- endmacro %}
