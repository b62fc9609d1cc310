{#- How many digits of a card number a landed part shows: its form, never its digits. Null when there is none. -#}
{% macro visible_digits(part) -%}
    /*breaker:visible_digits(*/ length({{ part }}) /*)breaker*/
{%- endmacro %}
