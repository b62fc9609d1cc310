-- One row per product, as the OLTP system has them now.
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
        _landed_at as loaded_at,
        _deleted_at as deleted_at
    from {{ source('oltp', 'product') }}
),

-- a row that is gone at the source stays in raw as a soft delete; its past is in the history
final as (
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
        loaded_at
    from source
    where deleted_at is null
)

select * from final
