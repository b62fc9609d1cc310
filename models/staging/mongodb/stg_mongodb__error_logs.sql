-- One row per logged error; the message itself lies in the vault, its length and flags are here.
{{ config(
    materialized='incremental',
    incremental_strategy='delete+insert',
    unique_key='document_id',
    pre_hook="{{ remove_vanished('mongodb', 'error_logs', '_id', 'document_id') }}",
) }}
{%- set structure = {
    'service': 'text',
    'level': 'text',
    'message_token': 'text',
    'message_length': 'text',
    'message_has_card_number': 'text',
    'message_has_email': 'text',
    'message_has_phone': 'text',
    'context': {
        'transaction_id': 'text',
        'merchant_id': 'text',
        'customer_id': 'text',
        'request_id': 'text',
        'payout_id': 'text',
        'retry': 'text',
        'attempts': 'text',
        'latency_ms': 'text',
        'ip_token': 'text',
        'ip_network': 'text',
        'email_token': 'text',
        'email_domain': 'text',
    },
    'occurred_at': 'text',
} %}
with

source as (
    select
        _id as document_id,
        {{ json_document('document', structure) }} as parsed,
        _landed_at as loaded_at
    from {{ source('mongodb', 'error_logs') }}
    where _deleted_at is null{{ and_landed_since() }}
),

final as (
    select
        document_id,
        {{ json_text('parsed', 'context.transaction_id') }} as transaction_id,
        {{ json_text('parsed', 'context.merchant_id') }} as merchant_id,
        {{ json_text('parsed', 'context.customer_id') }} as customer_id,
        {{ json_text('parsed', 'context.payout_id') }} as payout_id,
        {{ json_text('parsed', 'context.request_id') }} as request_id,
        {{ json_text('parsed', 'message_token') }} as message_token,
        {{ json_text('parsed', 'context.ip_token') }} as ip_address_token,
        {{ json_text('parsed', 'context.email_token') }} as email_token,
        {{ json_text('parsed', 'context.ip_network') }} as ip_network,
        {{ json_text('parsed', 'context.email_domain') }} as email_domain,
        {{ json_text('parsed', 'service') }} as service,
        lower({{ json_text('parsed', 'level') }}) as log_level,
        {{ try_to(json_text('parsed', 'context.attempts'), 'integer') }} as attempts_count,
        {{ try_to(json_text('parsed', 'context.latency_ms'), 'integer') }} as latency_ms,
        {{ try_to(json_text('parsed', 'message_length'), 'integer') }} as message_length,
        {{ try_to(json_text('parsed', 'context.retry'), 'boolean') }} as is_retry,
        {{ try_to(json_text('parsed', 'message_has_card_number'), 'boolean') }} as message_has_card_number,
        {{ try_to(json_text('parsed', 'message_has_email'), 'boolean') }} as message_has_email,
        {{ try_to(json_text('parsed', 'message_has_phone'), 'boolean') }} as message_has_phone,
        {{ try_to_utc(json_text('parsed', 'occurred_at')) }} as occurred_at,
        loaded_at
    from source
)

select * from final
