{#- A card number as PCI DSS 3.4.1 lets it be shown: first six and last four digits. Null when either part is. -#}
{% macro mask_pan(bin, last4) -%}
    /*breaker:mask_pan(*/ substring({{ bin }}, 1, 6) || '******' || {{ last4 }} /*)breaker*/
{%- endmacro %}
