-- One row per version of a merchant that ever landed, deletions included.
{%- set columns = [
    'merchant_id',
    'location_id',
    'legal_name_token',
    'trade_name',
    'merchant_category_code',
    'settlement_currency_code',
    'time_zone',
    'risk_tier',
    'pci_level',
    'onboarded_at',
] %}
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
        _row_hash as row_hash,
        _deleted_at as deleted_at,
        _load_id as load_id,
        _landed_at as loaded_at
    from {{ source('oltp', 'merchant_history') }}
),

final as (
    {{ landed_versions('source', key='merchant_id', columns=columns) | indent(4) }}
)

select * from final
