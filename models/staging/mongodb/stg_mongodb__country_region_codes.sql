-- One row per country document, its regions still nested.
{%- set structure = {
    'country': 'text',
    'alpha2': 'text',
    'alpha3': 'text',
    'numeric': 'text',
    'regions': 'json',
} %}
with

source as (
    select
        _id as document_id,
        {{ json_document('document', structure) }} as parsed,
        _landed_at as loaded_at
    from {{ source('mongodb', 'country_region_codes') }}
    where _deleted_at is null
),

-- the numeric code is text of three digits: as a number it would lose its zeros, and some documents hold a number
final as (
    select
        document_id,
        {{ json_text('parsed', 'country') }} as country_name,
        upper({{ json_text('parsed', 'alpha2') }}) as country_code,
        upper({{ json_text('parsed', 'alpha3') }}) as alpha3_code,
        lpad({{ json_text('parsed', 'numeric') }}, 3, '0') as numeric_code,
        {{ json_json('parsed', 'regions') }} as regions,
        {{ json_array_size(json_json('parsed', 'regions')) }} as regions_count,
        loaded_at
    from source
)

select * from final
