{#- A landed postal prefix, cut to two characters and marked as cut: `101` becomes `10*`. -#}
{% macro mask_postal_code(postal_prefix) -%}
    /*breaker:mask_postal_code(*/ substring(upper({{ postal_prefix }}), 1, 2) || '*' /*)breaker*/
{%- endmacro %}
