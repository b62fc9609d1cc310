-- One row per postal location, coarsened: region and city, a two-character postal area, a five-degree cell.
with

locations as (
    select
        location_id,
        country_code,
        region_code,
        city,
        postal_prefix,
        latitude_degree,
        longitude_degree,
        updated_at
    from {{ ref('stg_oltp__location') }}
),

countries as (
    select
        country_name,
        country_code
    from {{ ref('countries') }}
),

final as (
    select
        {{ member_key('locations.location_id') }} as location_key,
        locations.location_id,
        locations.country_code,
        countries.country_name,
        locations.region_code,
        locations.city,
        {{ mask_postal_code('locations.postal_prefix') }} as postal_area,
        {{ round_geo('locations.latitude_degree') }} as latitude_cell,
        {{ round_geo('locations.longitude_degree') }} as longitude_cell,
        locations.updated_at
    from locations
    left join countries on locations.country_code = countries.country_code
    union all
    {{ default_members({
        'location_key': 'key',
        'location_id': 'label',
        'country_code': null_of(type_text()),
        'country_name': 'label',
        'region_code': null_of(type_text()),
        'city': null_of(type_text()),
        'postal_area': null_of(type_text()),
        'latitude_cell': null_of('smallint'),
        'longitude_cell': null_of('smallint'),
        'updated_at': null_of(type_utc_timestamp()),
    }) | indent(4) }}
)

select * from final
