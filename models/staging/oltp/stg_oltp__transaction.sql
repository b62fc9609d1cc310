-- One row per payment of the OLTP system, with the latest status it was seen in.
with

source as (
    select
        transaction_id,
        merchant_id,
        customer_id,
        payment_method_id,
        product_id,
        device_id,
        location_id,
        currency_code,
        status_code,
        quantity,
        amount,
        tax,
        created_at,
        updated_at,
        _landed_at as loaded_at,
        _deleted_at as deleted_at
    from {{ source('oltp', 'transaction') }}
),

-- a row that is gone at the source stays in raw as a soft delete; its past is in the history
final as (
    select
        transaction_id,
        merchant_id,
        customer_id,
        payment_method_id,
        product_id,
        device_id,
        location_id,
        currency_code,
        status_code,
        quantity,
        amount,
        tax,
        created_at,
        updated_at,
        loaded_at
    from source
    where deleted_at is null
)

select * from final
