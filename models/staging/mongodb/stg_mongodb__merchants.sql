-- One row per merchant document, as the onboarding team has it now.
with

source as (
    select
        _id as document_id,
        cursor_at,
        {{ json_document('document', mongodb_merchants_structure()) }} as parsed,
        _landed_at as loaded_at
    from {{ source('mongodb', 'merchants') }}
    where _deleted_at is null
),

final as (
    select
        document_id,
        {%- for name, expression in mongodb_merchants_columns().items() %}
        {{ expression }} as {{ name }},
        {%- endfor %}
        loaded_at
    from source
)

select * from final
