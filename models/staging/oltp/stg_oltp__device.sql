-- One row per device a customer has paid from.
with

source as (
    select
        device_id,
        customer_id,
        fingerprint_token,
        ip_address_token,
        ip_network,
        device_type,
        os as operating_system,
        browser,
        first_seen_at,
        updated_at,
        _landed_at as loaded_at,
        _deleted_at as deleted_at
    from {{ source('oltp', 'device') }}
),

-- a row that is gone at the source stays in raw as a soft delete
final as (
    select
        device_id,
        customer_id,
        fingerprint_token,
        ip_address_token,
        ip_network,
        device_type,
        operating_system,
        browser,
        first_seen_at,
        updated_at,
        loaded_at
    from source
    where deleted_at is null
)

select * from final
