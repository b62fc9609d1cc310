-- One row per computed feature document, its features still nested.
{%- set structure = {
    'entity_type': 'text',
    'entity_id': 'text',
    'features': 'json',
    'feature_set_version': 'text',
    'computed_at': 'text',
} %}
with

source as (
    select
        _id as document_id,
        {{ json_document('document', structure) }} as parsed,
        _landed_at as loaded_at
    from {{ source('mongodb', 'machine_learning_features') }}
    where _deleted_at is null
),

final as (
    select
        document_id,
        lower({{ json_text('parsed', 'entity_type') }}) as entity_type,
        {{ json_text('parsed', 'entity_id') }} as entity_id,
        {{ json_text('parsed', 'feature_set_version') }} as feature_set_version,
        {{ json_json('parsed', 'features') }} as features,
        {{ try_to_utc(json_text('parsed', 'computed_at')) }} as computed_at,
        loaded_at
    from source
)

select * from final
