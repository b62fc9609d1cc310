-- One row per minute of the day; facts join it by the minute that the shop's clock showed.
with

-- minutes, not hours: card testing comes in minutes, and 1,440 rows cost no more than 24. The hour is an attribute.
-- There is no portable way to count to 1,440, but one to list dates
bounds as (
    select
        cast('2000-01-01' as date) as first_date,
        cast({{ dbt.dateadd('day', 1439, "cast('2000-01-01' as date)") }} as date) as last_date
),

minutes as (
    select {{ days_between("cast('2000-01-01' as date)", 'date_day') }} as minute_of_day
    from {{ date_rows('bounds', 'first_date', 'last_date') | indent(4) }}
),

parts as (
    select
        cast(minute_of_day as smallint) as minute_of_day,
        cast(mod(minute_of_day, 60) as smallint) as minute_of_hour,
        cast((minute_of_day - mod(minute_of_day, 60)) / 60 as smallint) as hour_of_day
    from minutes
),

final as (
    select
        cast(hour_of_day * 100 + minute_of_hour as integer) as time_key,
        lpad(cast(hour_of_day as {{ type_text() }}), 2, '0') || ':'
        || lpad(cast(minute_of_hour as {{ type_text() }}), 2, '0') as time_of_day,
        case
            when hour_of_day < 6 then 'night'
            when hour_of_day < 12 then 'morning'
            when hour_of_day < 18 then 'afternoon'
            else 'evening'
        end as day_part,
        hour_of_day,
        minute_of_hour,
        minute_of_day,
        hour_of_day between 9 and 16 as is_office_hour
    from parts
    union all
    {{ default_members({
        'time_key': 'number',
        'time_of_day': 'label',
        'day_part': 'label',
        'hour_of_day': null_of('smallint'),
        'minute_of_hour': null_of('smallint'),
        'minute_of_day': null_of('smallint'),
        'is_office_hour': null_of('boolean'),
    }) | indent(4) }}
)

select * from final
