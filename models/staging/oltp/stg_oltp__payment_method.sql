-- One row per payment method a customer has on file.
with

source as (
    select
        payment_method_id,
        customer_id,
        card_number_token,
        card_number_bin,
        card_number_last4,
        method_type,
        card_brand,
        card_expiry,
        issuer_country as issuer_country_code,
        wallet,
        created_at,
        updated_at,
        _landed_at as loaded_at,
        _deleted_at as deleted_at
    from {{ source('oltp', 'payment_method') }}
),

-- a row that is gone at the source stays in raw as a soft delete
final as (
    select
        payment_method_id,
        customer_id,
        card_number_token,
        card_number_bin,
        card_number_last4,
        method_type,
        card_brand,
        card_expiry,
        issuer_country_code,
        wallet,
        created_at,
        updated_at,
        loaded_at
    from source
    where deleted_at is null
)

select * from final
