{#-
  The key of a date in one of a fact's roles: -2 where the step was not reached, -1 where its date lies outside the
  calendar (a clock that runs years ahead), so that the key always finds its row in `dim_date` without a join per role.
-#}
{% macro role_date_key(date_day) -%}
    case
        when {{ date_day }} is null then {{ var('not_applicable_key') }}
        when
            {{ date_day }} between cast('{{ var("calendar_first_date", "2015-01-01") }}' as date)
            and cast('{{ var("calendar_last_date", "2035-12-31") }}' as date)
            then {{ date_key(date_day) }}
        else {{ var('unknown_key') }}
    end
{%- endmacro %}


{#- The later of instants of which some are null; null when all are. -#}
{% macro latest_of(instants) -%}
    greatest(
        {%- for instant in instants %}
        coalesce({{ instant }}, {{ utc('1900-01-01') }}){{ ',' if not loop.last }}
        {%- endfor %}
    )
{%- endmacro %}
