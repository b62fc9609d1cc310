-- One row per calendar date; facts join it in several roles (business date, day of creation, day of capture).
{%- set fiscal_year_first_month = var('fiscal_year_first_month', 1) %}
with

bounds as (
    select
        cast('{{ var("calendar_first_date", "2015-01-01") }}' as date) as first_date,
        cast('{{ var("calendar_last_date", "2035-12-31") }}' as date) as last_date
),

calendar as (
    select date_day from {{ date_rows('bounds', 'first_date', 'last_date') }}
),

parts as (
    select
        date_day,
        cast(extract(year from date_day) as integer) as calendar_year,
        cast(extract(month from date_day) as smallint) as month_of_year,
        cast(extract(day from date_day) as smallint) as day_of_month,
        -- days since a Monday: the engines disagree on the number of a weekday
        cast(mod({{ days_between("cast('2001-01-01' as date)", 'date_day') }} + 7000, 7) + 1 as smallint)
            as day_of_week,
        cast({{ dbt.date_trunc('year', 'date_day') }} as date) as first_of_year,
        cast({{ dbt.date_trunc('month', 'date_day') }} as date) as first_of_month,
        cast({{ dbt.last_day('date_day', 'month') }} as date) as last_of_month
    from calendar
),

-- an ISO week belongs to the year of its Thursday
weeks as (
    select
        *,
        cast({{ dbt.dateadd('day', '4 - day_of_week', 'date_day') }} as date) as thursday,
        cast({{ dbt.dateadd('day', '1 - day_of_week', 'date_day') }} as date) as first_of_week
    from parts
),

named as (
    select
        *,
        cast(extract(year from thursday) as integer) as iso_year,
        cast(
            floor({{ days_between('cast(' ~ dbt.date_trunc('year', 'thursday') ~ ' as date)', 'thursday') }} / 7.0) + 1
            as smallint
        ) as iso_week,
        mod(month_of_year - {{ fiscal_year_first_month }} + 12, 12) + 1 as fiscal_month_number,
        case
            {%- for name in ['Monday', 'Tuesday', 'Wednesday', 'Thursday', 'Friday', 'Saturday', 'Sunday'] %}
            when day_of_week = {{ loop.index }} then '{{ name }}'
            {%- endfor %}
        end as day_name,
        case
            {%- for name in [
                'January', 'February', 'March', 'April', 'May', 'June',
                'July', 'August', 'September', 'October', 'November', 'December',
            ] %}
            when month_of_year = {{ loop.index }} then '{{ name }}'
            {%- endfor %}
        end as month_name
    from weeks
),

final as (
    select
        {{ date_key('date_day') }} as date_key,
        date_day,
        day_name,
        month_name,
        calendar_year,
        cast(floor((month_of_year + 2) / 3.0) as smallint) as quarter_of_year,
        month_of_year,
        day_of_month,
        day_of_week,
        cast({{ days_between('first_of_year', 'date_day') }} + 1 as smallint) as day_of_year,
        iso_year,
        iso_week,
        -- a fiscal year is named after the calendar year in which it ends
        case
            when {{ fiscal_year_first_month }} > 1 and month_of_year >= {{ fiscal_year_first_month }}
                then calendar_year + 1
            else calendar_year
        end as fiscal_year,
        cast(floor((fiscal_month_number + 2) / 3.0) as smallint) as fiscal_quarter,
        cast(fiscal_month_number as smallint) as fiscal_month,
        first_of_week,
        first_of_month,
        last_of_month,
        day_of_week >= 6 as is_weekend,
        date_day = last_of_month as is_month_end,
        date_day = last_of_month and month_of_year in (3, 6, 9, 12) as is_quarter_end,
        date_day = last_of_month and month_of_year = 12 as is_year_end
    from named
    union all
    {{ default_members({
        'date_key': 'number',
        'date_day': null_of('date'),
        'day_name': 'label',
        'month_name': 'label',
        'calendar_year': null_of('integer'),
        'quarter_of_year': null_of('smallint'),
        'month_of_year': null_of('smallint'),
        'day_of_month': null_of('smallint'),
        'day_of_week': null_of('smallint'),
        'day_of_year': null_of('smallint'),
        'iso_year': null_of('integer'),
        'iso_week': null_of('smallint'),
        'fiscal_year': null_of('integer'),
        'fiscal_quarter': null_of('smallint'),
        'fiscal_month': null_of('smallint'),
        'first_of_week': null_of('date'),
        'first_of_month': null_of('date'),
        'last_of_month': null_of('date'),
        'is_weekend': null_of('boolean'),
        'is_month_end': null_of('boolean'),
        'is_quarter_end': null_of('boolean'),
        'is_year_end': null_of('boolean'),
    }) | indent(4) }}
)

select * from final
