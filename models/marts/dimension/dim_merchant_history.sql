-- One row per version of a merchant: what was known of it, and from when to when.
with

merchant_versions as (
    select
        merchant_id,
        valid_from,
        location_id,
        trade_name,
        merchant_category_code,
        settlement_currency_code,
        time_zone,
        risk_tier,
        pci_level,
        version_number,
        is_current,
        is_deleted,
        is_inferred,
        onboarded_at,
        updated_at,
        valid_to
    from {{ ref('int_merchant_versions') }}
),

locations as (
    select
        location_key,
        country_code,
        location_id
    from {{ ref('dim_location') }}
),

categories as (
    select
        category_name,
        category_group,
        is_high_risk,
        merchant_category_code
    from {{ ref('merchant_category_codes') }}
),

final as (
    select
        {{ member_version_key('merchant_versions.merchant_id', 'merchant_versions.valid_from') }}
            as merchant_version_key,
        {{ member_key('merchant_versions.merchant_id') }} as merchant_key,
        {{ key_or_default('locations.location_key', 'merchant_versions.location_id') }} as location_key,
        merchant_versions.merchant_id,
        merchant_versions.trade_name,
        merchant_versions.merchant_category_code,
        categories.category_name as merchant_category_name,
        categories.category_group as merchant_category_group,
        locations.country_code,
        merchant_versions.settlement_currency_code,
        merchant_versions.time_zone,
        merchant_versions.risk_tier,
        merchant_versions.pci_level,
        cast(merchant_versions.version_number as integer) as version_number,
        coalesce(categories.is_high_risk, false) as is_high_risk_category,
        merchant_versions.is_current,
        merchant_versions.is_deleted,
        merchant_versions.is_inferred,
        merchant_versions.onboarded_at,
        merchant_versions.updated_at,
        merchant_versions.valid_from,
        merchant_versions.valid_to
    from merchant_versions
    left join locations on merchant_versions.location_id = locations.location_id
    left join categories on merchant_versions.merchant_category_code = categories.merchant_category_code
    union all
    {{ default_members({
        'merchant_version_key': 'key',
        'merchant_key': 'key',
        'location_key': "'" ~ var('not_applicable_key') ~ "'",
        'merchant_id': 'label',
        'trade_name': 'label',
        'merchant_category_code': null_of(type_text()),
        'merchant_category_name': null_of(type_text()),
        'merchant_category_group': null_of(type_text()),
        'country_code': null_of(type_text()),
        'settlement_currency_code': null_of(type_text()),
        'time_zone': null_of(type_text()),
        'risk_tier': null_of(type_text()),
        'pci_level': null_of('smallint'),
        'version_number': 'cast(1 as integer)',
        'is_high_risk_category': 'false',
        'is_current': 'true',
        'is_deleted': 'false',
        'is_inferred': 'false',
        'onboarded_at': null_of(type_utc_timestamp()),
        'updated_at': null_of(type_utc_timestamp()),
        'valid_from': utc('1900-01-01'),
        'valid_to': utc('9999-12-31'),
    }) | indent(4) }}
)

select * from final
