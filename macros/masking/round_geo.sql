{#- A coordinate in degrees, rounded down to a multiple of `step` degrees (5 degrees of latitude are some 550 km). -#}
{% macro round_geo(degrees, step=5) -%}
    /*breaker:round_geo(*/ cast(floor({{ degrees }} / {{ step }}.0) * {{ step }} as smallint) /*)breaker*/
{%- endmacro %}
