-- One row per merchant, as it is known now; every earlier version is in dim_merchant_history.
with

final as (
    select
        merchant_key,
        merchant_version_key,
        location_key,
        merchant_id,
        trade_name,
        merchant_category_code,
        merchant_category_name,
        merchant_category_group,
        country_code,
        settlement_currency_code,
        time_zone,
        risk_tier,
        pci_level,
        version_number as versions,
        is_high_risk_category,
        is_deleted,
        is_inferred,
        onboarded_at,
        updated_at
    from {{ ref('dim_merchant_history') }}
    where is_current
)

select * from final
