-- One row per version of a product that ever landed, deletions included.
{%- set columns = [
    'product_id',
    'merchant_id',
    'product_name',
    'category',
    'currency_code',
    'unit_price',
    'is_active',
    'created_at',
] %}
with

source as (
    select
        product_id,
        merchant_id,
        product_name,
        category,
        currency_code,
        unit_price,
        is_active,
        created_at,
        updated_at,
        _row_hash as row_hash,
        _deleted_at as deleted_at,
        _load_id as load_id,
        _landed_at as loaded_at
    from {{ source('oltp', 'product_history') }}
),

final as (
    {{ landed_versions('source', key='product_id', columns=columns) | indent(4) }}
)

select * from final
