{#-
  `hash_key([expressions])`: md5 text of the parts joined by '|'. A missing part counts as the empty text, so a key
  is never null; text and number spell alike on every engine because each part is cast to text first.
-#}
{% macro hash_key(expressions) -%}
    md5(
        {%- for expression in expressions -%}
            coalesce(cast({{ expression }} as {{ type_text() }}), ''){{ " || '|' || " if not loop.last }}
        {%- endfor -%}
    )
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
