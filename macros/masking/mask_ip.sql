{#- A landed network (`10.1.2.0/24`, `2001:db8:1::/48`) one step coarser: /16 for IPv4, /32 for IPv6.
    An IPv6 network that is compressed inside its first two groups has no such prefix to show: null. -#}
{% macro mask_ip(network) -%}
    /*breaker:mask_ip(*/ case
        when {{ network }} like '%.%' and {{ network }} not like '%:%'
            then split_part({{ network }}, '.', 1) || '.' || split_part({{ network }}, '.', 2) || '.0.0/16'
        when {{ network }} like '_%:_%' and split_part({{ network }}, ':', 2) <> ''
            then split_part({{ network }}, ':', 1) || ':' || split_part({{ network }}, ':', 2) || '::/32'
    end /*)breaker*/
{%- endmacro %}
