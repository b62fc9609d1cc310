-- One row per product and version: name, category and price from OLTP, today's attributes from the product documents.
{%- set attributes = [
    'merchant_id',
    'product_name',
    'category',
    'currency_code',
    'unit_price',
    'is_active',
    'created_at',
] %}
{%- set profile = [
    'attributes',
    'tags_count',
    'variants_count',
] %}
with

history as (
    select
        product_id,
        {{ canonical_merchant_id('merchant_id') }} as merchant_id,
        {%- for attribute in attributes if attribute != 'merchant_id' %}
        {{ attribute }},
        {%- endfor %}
        is_deleted,
        effective_at,
        updated_at,
        row_hash,
        load_id,
        loaded_at
    from {{ ref('stg_oltp__product_history') }}
),

documents as (
    select
        product_id,
        {{ canonical_merchant_id('merchant_id') }} as merchant_id,
        product_name,
        {%- for column in profile %}
        {{ column }},
        {%- endfor %}
        row_number() over (
            partition by product_id
            order by updated_at desc, document_id desc
        ) as recency
    from {{ ref('stg_mongodb__products') }}
),

crosswalk as (
    select canonical_id
    from {{ ref('int_entity_crosswalk') }}
    where entity_type = 'product'
),

landed as (
    {{ version_intervals('history', key='product_id', attributes=attributes) | indent(4) }}
),

inferred as (
    select distinct crosswalk.canonical_id as product_id
    from crosswalk
    left join landed on crosswalk.canonical_id = landed.product_id
    where landed.product_id is null
),

versions as (
    select
        product_id,
        version_number,
        {%- for attribute in attributes %}
        {{ attribute }},
        {%- endfor %}
        is_current,
        is_deleted,
        false as is_inferred,
        valid_from,
        valid_to,
        updated_at,
        loaded_at
    from landed

    union all

    select
        product_id,
        1 as version_number,
        {%- for attribute in attributes %}
        null as {{ attribute }},
        {%- endfor %}
        true as is_current,
        false as is_deleted,
        true as is_inferred,
        {{ utc('1900-01-01') }} as valid_from,
        {{ utc('9999-12-31') }} as valid_to,
        null as updated_at,
        null as loaded_at
    from inferred
),

-- type 1: every version of a product shows the document's attributes as they are today
final as (
    select
        versions.product_id,
        case when versions.is_inferred then documents.merchant_id else versions.merchant_id end as merchant_id,
        versions.version_number,
        -- a product that only the documents know goes by the name it has there
        case when versions.is_inferred then documents.product_name else versions.product_name end as product_name,
        versions.category,
        versions.currency_code,
        versions.unit_price,
        {%- for column in profile %}
        documents.{{ column }},
        {%- endfor %}
        documents.product_id is not null as has_profile,
        versions.is_active,
        versions.is_current,
        versions.is_deleted,
        versions.is_inferred,
        versions.created_at,
        versions.valid_from,
        versions.valid_to,
        versions.updated_at,
        versions.loaded_at
    from versions
    left join documents
        on
            versions.product_id = documents.product_id
            and documents.recency = 1
)

select * from final
