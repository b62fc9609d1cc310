-- One row per device that a customer has paid from, without what would recognise it again elsewhere.
with

final as (
    select
        {{ member_key('device_id') }} as device_key,
        device_id,
        device_type,
        {{ mask_device('device_type', 'operating_system') }} as device_family,
        browser,
        {{ mask_ip('ip_network') }} as network,
        first_seen_at,
        updated_at
    from {{ ref('stg_oltp__device') }}
    union all
    {{ default_members({
        'device_key': 'key',
        'device_id': 'label',
        'device_type': null_of(type_text()),
        'device_family': 'label',
        'browser': null_of(type_text()),
        'network': null_of(type_text()),
        'first_seen_at': null_of(type_utc_timestamp()),
        'updated_at': null_of(type_utc_timestamp()),
    }) | indent(4) }}
)

select * from final
