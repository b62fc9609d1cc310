-- One row per version of a payment document that ever landed, deletions included.
-- a view, unlike its neighbours: no model reads it, and a table would parse every version in every run for nobody
{{ config(materialized='view') }}
{%- set columns = mongodb_transactions_columns() %}
with

source as (
    select
        _id as document_id,
        cursor_at,
        {{ json_document('document', mongodb_transactions_structure()) }} as parsed,
        _row_hash as row_hash,
        _deleted_at as deleted_at,
        _load_id as load_id,
        _landed_at as loaded_at
    from {{ source('mongodb', 'transactions_history') }}
),

flattened as (
    select
        document_id,
        {%- for name, expression in columns.items() %}
        {{ expression }} as {{ name }},
        {%- endfor %}
        row_hash,
        deleted_at,
        load_id,
        loaded_at
    from source
),

final as (
    {{
        landed_versions(
            'flattened',
            key='document_id',
            columns=['document_id'] + (columns | reject('equalto', 'updated_at') | list),
        ) | indent(4)
    }}
)

select * from final
