-- One row per country, jurisdiction whose rules apply to its residents, and first day on which they did.
with

memberships as (
    select
        country_code,
        list_name,
        valid_from,
        valid_to
    from {{ ref('country_memberships') }}
),

-- Union law binds the European Economic Area, and bound the United Kingdom until its transition ended
european as (
    select
        country_code,
        min(valid_from) as valid_from,
        max(coalesce(valid_to, cast('9999-12-31' as date))) as valid_to
    from memberships
    where list_name in ('EEA', 'EU_TRANSITION')
    group by country_code
),

final as (
    select
        country_code,
        'EU' as jurisdiction,
        valid_from,
        valid_to
    from european
    {%- for country, jurisdiction in {'CH': 'CH', 'GB': 'UK', 'US': 'US'}.items() %}
    union all
    select
        '{{ country }}' as country_code,
        '{{ jurisdiction }}' as jurisdiction,
        cast('1900-01-01' as date) as valid_from,
        cast('9999-12-31' as date) as valid_to
    {%- endfor %}
)

select * from final
