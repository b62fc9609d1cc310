-- One row per published rate document (one working day), its rates still nested.
{%- set structure = {'date': 'text', 'base': 'text', 'rates': 'json'} %}
with

source as (
    select
        _id as document_id,
        {{ json_document('document', structure) }} as parsed,
        _landed_at as loaded_at
    from {{ source('mongodb', 'currency_exchange_rates') }}
    where _deleted_at is null
),

-- the date is a day, written as its midnight in UTC
final as (
    select
        document_id,
        upper({{ json_text('parsed', 'base') }}) as base_currency_code,
        {{ json_json('parsed', 'rates') }} as rates,
        {{ try_to('substr(' ~ json_text('parsed', 'date') ~ ', 1, 10)', 'date') }} as rate_date,
        loaded_at
    from source
)

select * from final
