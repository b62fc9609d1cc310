-- One row per payment document of `Transactions`, as it is now.
{{ config(
    materialized='incremental',
    incremental_strategy='delete+insert',
    unique_key='document_id',
    pre_hook="{{ remove_vanished('mongodb', 'transactions', '_id', 'document_id') }}",
) }}
with

source as (
    select
        _id as document_id,
        cursor_at,
        {{ json_document('document', mongodb_transactions_structure()) }} as parsed,
        _landed_at as loaded_at
    from {{ source('mongodb', 'transactions') }}
    where _deleted_at is null{{ and_landed_since() }}
),

final as (
    select
        document_id,
        {%- for name, expression in mongodb_transactions_columns().items() %}
        {{ expression }} as {{ name }},
        {%- endfor %}
        loaded_at
    from source
)

select * from final
