{#-
    `measure` only where it describes at least `k` members: null hides what would point at a few people. Where it would
    say the same of all of them, `diversity` is how many different values they have, and `l` how many there must be.
-#}
{% macro suppress_small_groups(measure, group_size, k=10, diversity=none, l=2) -%}
    case when {{ group_size }} >= {{ k }}{% if diversity is not none %} and {{ diversity }} >= {{ l }}{% endif %} then {{ measure }} end
{%- endmacro %}
