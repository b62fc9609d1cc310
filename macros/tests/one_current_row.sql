{#- Invariant 6. Fails for every `key` that has no current row, or more than one. -#}
{% test one_current_row(model, key, is_current='is_current') %}
    select
        {{ key }},
        sum(case when {{ is_current }} then 1 else 0 end) as current_rows
    from {{ model }}
    group by {{ key }}
    having sum(case when {{ is_current }} then 1 else 0 end) != 1
{% endtest %}
