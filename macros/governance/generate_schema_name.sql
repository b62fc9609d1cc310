{#- Schemas carry their plain names: `public` is `public` on every target, never `<target schema>_public`. -#}
{% macro generate_schema_name(custom_schema_name, node) -%}
    {{ (custom_schema_name or target.schema) | trim }}
{%- endmacro %}
