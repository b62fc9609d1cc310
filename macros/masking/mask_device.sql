{#- A device as type and family of operating system, without versions: `mobile / Android`. -#}
{% macro mask_device(device_type, os) -%}
    coalesce({{ device_type }}, 'unknown') || ' / ' || coalesce(split_part({{ os }}, ' ', 1), 'unknown')
{%- endmacro %}
