-- One row per postal location.
with

source as (
    select
        location_id,
        country_code,
        region_code,
        city,
        postal_code_token,
        postal_prefix,
        latitude_token,
        longitude_token,
        latitude_degree,
        longitude_degree,
        updated_at,
        _landed_at as loaded_at,
        _deleted_at as deleted_at
    from {{ source('oltp', 'location') }}
),

-- a row that is gone at the source stays in raw as a soft delete
final as (
    select
        location_id,
        country_code,
        region_code,
        city,
        postal_code_token,
        postal_prefix,
        latitude_token,
        longitude_token,
        latitude_degree,
        longitude_degree,
        updated_at,
        loaded_at
    from source
    where deleted_at is null
)

select * from final
