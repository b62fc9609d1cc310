{#- The key of a date in `dim_date`: 20240330, '-1'-like -1 where there is none. A plain number sorts and reads. -#}
{% macro date_key(date_day) -%}
    coalesce(
        cast(
            extract(year from {{ date_day }}) * 10000
            + extract(month from {{ date_day }}) * 100
            + extract(day from {{ date_day }}) as integer
        ),
        {{ var('not_applicable_key') }}
    )
{%- endmacro %}
