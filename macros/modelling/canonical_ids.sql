{#-
  People and shops have two spellings: CUST005 (documents) is CUSTOMER005 (OLTP), MERCH003 is MERCHANT003. Equal
  numbers mean the same member, however many zeros stand before them. What fits neither spelling stays as it is.
-#}
{% macro canonical_customer_id(expression) -%}
    {{ canonical_id(expression, ['CUSTOMER', 'CUST'], 'CUSTOMER') }}
{%- endmacro %}

{% macro canonical_merchant_id(expression) -%}
    {{ canonical_id(expression, ['MERCHANT', 'MERCH'], 'MERCHANT') }}
{%- endmacro %}

{% macro canonical_id(expression, prefixes, canonical_prefix) -%}
    {%- set digits = "ltrim(" ~ number_after_prefix(expression, prefixes) ~ ", '0')" -%}
    {#- at least three digits, as the OLTP system writes them; never fewer than the number has -#}
    coalesce(
        '{{ canonical_prefix }}' || case
            when length({{ digits }}) < 3 then lpad({{ digits }}, 3, '0')
            else {{ digits }}
        end,
        {{ expression }}
    )
{%- endmacro %}


{#- The number in an entity's id, whatever stands before it; null when there is none or it is no bigint. -#}
{% macro entity_number(expression) -%}
    {{ try_to(number_after_prefix(expression, ['[A-Z_-]*']), 'bigint') }}
{%- endmacro %}
