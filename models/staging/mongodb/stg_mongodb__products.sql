-- One row per product document, as it is now.
with

source as (
    select
        _id as document_id,
        cursor_at,
        {{ json_document('document', mongodb_products_structure()) }} as parsed,
        _landed_at as loaded_at
    from {{ source('mongodb', 'products') }}
    where _deleted_at is null
),

final as (
    select
        document_id,
        {%- for name, expression in mongodb_products_columns().items() %}
        {{ expression }} as {{ name }},
        {%- endfor %}
        loaded_at
    from source
)

select * from final
