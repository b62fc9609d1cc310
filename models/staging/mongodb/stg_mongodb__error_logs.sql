-- One row per logged error; the message itself lies in the vault, its length and flags are here.
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
        {{ json_document('document', structure) }} as fields,
        _landed_at as loaded_at
    from {{ source('mongodb', 'error_logs') }}
    where _deleted_at is null
),

final as (
    select
        document_id,
        {{ json_text('fields', 'context.transaction_id') }} as transaction_id,
        {{ json_text('fields', 'context.merchant_id') }} as merchant_id,
        {{ json_text('fields', 'context.customer_id') }} as customer_id,
        {{ json_text('fields', 'context.payout_id') }} as payout_id,
        {{ json_text('fields', 'context.request_id') }} as request_id,
        {{ json_text('fields', 'message_token') }} as message_token,
        {{ json_text('fields', 'context.ip_token') }} as ip_address_token,
        {{ json_text('fields', 'context.email_token') }} as email_token,
        {{ json_text('fields', 'context.ip_network') }} as ip_network,
        {{ json_text('fields', 'context.email_domain') }} as email_domain,
        {{ json_text('fields', 'service') }} as service,
        lower({{ json_text('fields', 'level') }}) as log_level,
        {{ try_to(json_text('fields', 'context.attempts'), 'integer') }} as attempts_count,
        {{ try_to(json_text('fields', 'context.latency_ms'), 'integer') }} as latency_ms,
        {{ try_to(json_text('fields', 'message_length'), 'integer') }} as message_length,
        {{ try_to(json_text('fields', 'context.retry'), 'boolean') }} as is_retry,
        {{ try_to(json_text('fields', 'message_has_card_number'), 'boolean') }} as message_has_card_number,
        {{ try_to(json_text('fields', 'message_has_email'), 'boolean') }} as message_has_email,
        {{ try_to(json_text('fields', 'message_has_phone'), 'boolean') }} as message_has_phone,
        {{ try_to_utc(json_text('fields', 'occurred_at')) }} as occurred_at,
        loaded_at
    from source
)

select * from final
