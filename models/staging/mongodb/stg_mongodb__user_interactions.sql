-- One row per interaction of a visitor with a shop.
{{ config(
    materialized='incremental',
    incremental_strategy='delete+insert',
    unique_key='document_id',
    pre_hook="{{ remove_vanished('mongodb', 'user_interactions', '_id', 'document_id') }}",
) }}
{%- set structure = {
    'customer_id': 'text',
    'session_id': 'text',
    'event': 'text',
    'product_id': 'text',
    'device': {
        'device_id': 'text',
        'type': 'text',
        'os': 'text',
        'browser': 'text',
        'ip_token': 'text',
        'ip_network': 'text',
        'user_agent_token': 'text',
    },
    'occurred_at': 'text',
} %}
with

source as (
    select
        _id as document_id,
        {{ json_document('document', structure) }} as parsed,
        _landed_at as loaded_at
    from {{ source('mongodb', 'user_interactions') }}
    where _deleted_at is null{{ and_landed_since() }}
),

flattened as (
    select
        document_id,
        {{ json_text('parsed', 'customer_id') }} as customer_id,
        {{ json_text('parsed', 'session_id') }} as session_id,
        {{ json_text('parsed', 'product_id') }} as product_id,
        {{ json_text('parsed', 'device.device_id') }} as device_id,
        {{ json_text('parsed', 'device.ip_token') }} as ip_address_token,
        {{ json_text('parsed', 'device.user_agent_token') }} as user_agent_token,
        {{ json_text('parsed', 'device.ip_network') }} as ip_network,
        {{ json_text('parsed', 'event') }} as event_type,
        {{ json_text('parsed', 'device.type') }} as device_type,
        {{ json_text('parsed', 'device.os') }} as operating_system,
        {{ json_text('parsed', 'device.browser') }} as browser,
        {{ try_to_utc(json_text('parsed', 'occurred_at')) }} as occurred_at,
        loaded_at
    from source
),

final as (
    select
        document_id,
        customer_id,
        session_id,
        product_id,
        device_id,
        ip_address_token,
        user_agent_token,
        ip_network,
        event_type,
        device_type,
        operating_system,
        browser,
        coalesce(event_type in ({{ quoted(interaction_event_types()) }}), false) as is_known_event_type,
        occurred_at,
        loaded_at
    from flattened
)

select * from final
