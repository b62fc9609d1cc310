-- One row per version of an OLTP payment that ever landed, deletions included.
{%- set columns = [
    'transaction_id',
    'merchant_id',
    'customer_id',
    'payment_method_id',
    'product_id',
    'device_id',
    'location_id',
    'currency_code',
    'status_code',
    'quantity',
    'amount',
    'tax',
    'created_at',
] %}
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
        _row_hash as row_hash,
        _deleted_at as deleted_at,
        _load_id as load_id,
        _landed_at as loaded_at
    from {{ source('oltp', 'transaction_history') }}
),

final as (
    {{ landed_versions('source', key='transaction_id', columns=columns) | indent(4) }}
)

select * from final
