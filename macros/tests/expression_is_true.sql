{#- Fails for every row on which `expression` is false; null (nothing to compare) passes. -#}
{% test expression_is_true(model, expression) %}
    select 1 as failing_row
    from {{ model }}
    where not ({{ expression }})
{% endtest %}
