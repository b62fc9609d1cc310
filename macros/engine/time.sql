{#-
  `local_date(instant, zone)`: the calendar date that the clocks of `zone` showed at `instant`. A zone that is
  missing, or unknown to the engine, counts as UTC: DuckDB would stop the whole query with the zone in its message.
-#}
{% macro local_date(instant, zone) -%}
    {{ return(adapter.dispatch('local_date')(instant, zone)) }}
{%- endmacro %}

{% macro default__local_date(instant, zone) -%}
    to_date(from_utc_timestamp({{ instant }}, coalesce({{ zone }}, 'UTC')))
{%- endmacro %}

{% macro duckdb__local_date(instant, zone) -%}
    cast(timezone(coalesce({{ zone }}, 'UTC'), {{ instant }}) as date)
{%- endmacro %}

{% macro snowflake__local_date(instant, zone) -%}
    to_date(convert_timezone(coalesce({{ zone }}, 'UTC'), {{ instant }}))
{%- endmacro %}


{#- `zone` when the engine knows it, else null. -#}
{% macro known_time_zone(zone) -%}
    {{ return(adapter.dispatch('known_time_zone')(zone)) }}
{%- endmacro %}

{% macro default__known_time_zone(zone) -%}
    {#- no list of zones inside these engines: accept the shape of an IANA name -#}
    case when regexp_like({{ zone }}, '^(UTC|[A-Z][A-Za-z_]+(/[A-Z][A-Za-z_+-]+)+)$') then {{ zone }} end
{%- endmacro %}

{% macro duckdb__known_time_zone(zone) -%}
    case when {{ zone }} in (select zones.name from pg_timezone_names() as zones) then {{ zone }} end
{%- endmacro %}


{#- The UTC calendar date of an instant. -#}
{% macro utc_date(instant) -%}
    {{ return(adapter.dispatch('utc_date')(instant)) }}
{%- endmacro %}

{% macro default__utc_date(instant) -%}
    {{ local_date(instant, "'UTC'") }}
{%- endmacro %}

{% macro duckdb__utc_date(instant) -%}
    {#- without ICU, as `seconds_between` -#}
    cast(make_timestamp(epoch_us({{ instant }})) as date)
{%- endmacro %}

{% macro snowflake__utc_date(instant) -%}
    {{ local_date(instant, "'UTC'") }}
{%- endmacro %}


{#- Whole days from `earlier` to `later`, both dates. -#}
{% macro days_between(earlier, later) -%}
    {{ return(adapter.dispatch('days_between')(earlier, later)) }}
{%- endmacro %}

{% macro default__days_between(earlier, later) -%}
    datediff({{ later }}, {{ earlier }})
{%- endmacro %}

{% macro duckdb__days_between(earlier, later) -%}
    cast(date_diff('day', {{ earlier }}, {{ later }}) as integer)
{%- endmacro %}

{% macro snowflake__days_between(earlier, later) -%}
    datediff('day', {{ earlier }}, {{ later }})
{%- endmacro %}


{#- Seconds from `earlier` to `later`, both instants. -#}
{% macro seconds_between(earlier, later) -%}
    {{ return(adapter.dispatch('seconds_between')(earlier, later)) }}
{%- endmacro %}

{% macro default__seconds_between(earlier, later) -%}
    (unix_timestamp({{ later }}) - unix_timestamp({{ earlier }}))
{%- endmacro %}

{% macro duckdb__seconds_between(earlier, later) -%}
    {#- date_diff of instants asks ICU's calendar, which takes thirty times as long to say the same -#}
    (epoch_us({{ later }}) // 1000000 - epoch_us({{ earlier }}) // 1000000)
{%- endmacro %}

{% macro snowflake__seconds_between(earlier, later) -%}
    datediff('second', {{ earlier }}, {{ later }})
{%- endmacro %}


{#- A from clause: one row per date, `date_day`, from `first` to `last` (columns of the one-row relation `bounds`). -#}
{% macro date_rows(bounds, first, last) -%}
    {{ return(adapter.dispatch('date_rows')(bounds, first, last)) }}
{%- endmacro %}

{% macro default__date_rows(bounds, first, last) -%}
    (
        select explode(sequence({{ first }}, {{ last }}, interval 1 day)) as date_day
        from {{ bounds }}
        where {{ first }} is not null
    ) as days
{%- endmacro %}

{% macro duckdb__date_rows(bounds, first, last) -%}
    (
        select cast(unnest(generate_series({{ first }}, {{ last }}, interval 1 day)) as date) as date_day
        from {{ bounds }}
    ) as days
{%- endmacro %}

{% macro snowflake__date_rows(bounds, first, last) -%}
    (
        select dateadd('day', entries.value::integer, {{ first }}) as date_day
        from {{ bounds }}, lateral flatten(input => array_generate_range(0, datediff('day', {{ first }}, {{ last }}) + 1)) as entries
    ) as days
{%- endmacro %}
