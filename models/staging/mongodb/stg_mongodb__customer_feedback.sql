-- One row per piece of feedback; the comment itself lies in the vault, its length and flags are here.
{{ config(
    materialized='incremental',
    incremental_strategy='delete+insert',
    unique_key='document_id',
    pre_hook="{{ remove_vanished('mongodb', 'customer_feedback', '_id', 'document_id') }}",
) }}
{%- set structure = {
    'customer_id': 'text',
    'merchant_id': 'text',
    'transaction_id': 'text',
    'rating': 'text',
    'comment_token': 'text',
    'comment_length': 'text',
    'comment_has_card_number': 'text',
    'comment_has_email': 'text',
    'comment_has_phone': 'text',
    'language': 'text',
    'channel': 'text',
    'created_at': 'text',
} %}
with

source as (
    select
        _id as document_id,
        {{ json_document('document', structure) }} as parsed,
        _landed_at as loaded_at
    from {{ source('mongodb', 'customer_feedback') }}
    where _deleted_at is null{{ and_landed_since() }}
),

final as (
    select
        document_id,
        {{ json_text('parsed', 'customer_id') }} as customer_id,
        {{ json_text('parsed', 'merchant_id') }} as merchant_id,
        {{ json_text('parsed', 'transaction_id') }} as transaction_id,
        {{ json_text('parsed', 'comment_token') }} as comment_token,
        {{ json_text('parsed', 'language') }} as language_code,
        {{ json_text('parsed', 'channel') }} as channel,
        {{ try_to(json_text('parsed', 'rating'), 'smallint') }} as rating,
        {{ try_to(json_text('parsed', 'comment_length'), 'integer') }} as comment_length,
        {{ try_to(json_text('parsed', 'comment_has_card_number'), 'boolean') }} as comment_has_card_number,
        {{ try_to(json_text('parsed', 'comment_has_email'), 'boolean') }} as comment_has_email,
        {{ try_to(json_text('parsed', 'comment_has_phone'), 'boolean') }} as comment_has_phone,
        {{ try_to_utc(json_text('parsed', 'created_at')) }} as created_at,
        loaded_at
    from source
)

select * from final
