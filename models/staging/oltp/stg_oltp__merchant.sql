-- One row per merchant, as the OLTP system has them now.
with

source as (
    select
        merchant_id,
        location_id,
        legal_name_token,
        trade_name,
        mcc as merchant_category_code,
        settlement_currency as settlement_currency_code,
        time_zone,
        risk_tier,
        pci_level,
        onboarded_at,
        updated_at,
        _landed_at as loaded_at,
        _deleted_at as deleted_at
    from {{ source('oltp', 'merchant') }}
),

-- a row that is gone at the source stays in raw as a soft delete; its past is in the history
final as (
    select
        merchant_id,
        location_id,
        legal_name_token,
        trade_name,
        merchant_category_code,
        settlement_currency_code,
        time_zone,
        risk_tier,
        pci_level,
        onboarded_at,
        updated_at,
        loaded_at
    from source
    where deleted_at is null
)

select * from final
