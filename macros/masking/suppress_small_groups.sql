{#- `measure` only where it describes at least `k` members: null hides what would point at a few people. -#}
{% macro suppress_small_groups(measure, group_size, k=10) -%}
    case when {{ group_size }} >= {{ k }} then {{ measure }} end
{%- endmacro %}
