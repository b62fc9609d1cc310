{#-
  Invariant 6. Fails for every interval [valid_from, valid_to) of one `key` that is empty, or that ends after the
  next one begins; with `gaps_allowed: false` (the default) also for one that ends before the next begins.
-#}
{% test non_overlapping_intervals(model, key, valid_from='valid_from', valid_to='valid_to', gaps_allowed=false) %}
    select
        {{ key }},
        {{ valid_from }},
        {{ valid_to }}
    from (
        select
            {{ key }},
            {{ valid_from }},
            {{ valid_to }},
            lead({{ valid_from }}) over (partition by {{ key }} order by {{ valid_from }}, {{ valid_to }}) as next_from
        from {{ model }}
    ) as intervals
    where
        {{ valid_from }} is null
        or {{ valid_to }} is null
        or {{ valid_from }} >= {{ valid_to }}
        or {{ valid_to }} > next_from
        {%- if not gaps_allowed %}
        or {{ valid_to }} < next_from
        {%- endif %}
{% endtest %}
