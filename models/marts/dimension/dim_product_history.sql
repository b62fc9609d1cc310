-- One row per version of a product: name, category and price, and from when to when they held.
with

product_versions as (
    select
        product_id,
        valid_from,
        merchant_id,
        product_name,
        category,
        currency_code,
        version_number,
        unit_price,
        is_active,
        is_current,
        is_deleted,
        is_inferred,
        created_at,
        updated_at,
        valid_to
    from {{ ref('int_product_versions') }}
),

merchants as (
    select
        merchant_key,
        merchant_id
    from {{ ref('dim_merchant') }}
),

final as (
    select
        {{ member_version_key('product_versions.product_id', 'product_versions.valid_from') }} as product_version_key,
        {{ member_key('product_versions.product_id') }} as product_key,
        {{ key_or_default('merchants.merchant_key', 'product_versions.merchant_id') }} as merchant_key,
        product_versions.product_id,
        product_versions.product_name,
        product_versions.category,
        product_versions.currency_code,
        cast(product_versions.version_number as integer) as version_number,
        product_versions.unit_price,
        product_versions.is_active,
        product_versions.is_current,
        product_versions.is_deleted,
        product_versions.is_inferred,
        product_versions.created_at,
        product_versions.updated_at,
        product_versions.valid_from,
        product_versions.valid_to
    from product_versions
    left join merchants on product_versions.merchant_id = merchants.merchant_id
    union all
    {{ default_members({
        'product_version_key': 'key',
        'product_key': 'key',
        'merchant_key': "'" ~ var('not_applicable_key') ~ "'",
        'product_id': 'label',
        'product_name': 'label',
        'category': null_of(type_text()),
        'currency_code': null_of(type_text()),
        'version_number': 'cast(1 as integer)',
        'unit_price': null_of(type_money()),
        'is_active': null_of('boolean'),
        'is_current': 'true',
        'is_deleted': 'false',
        'is_inferred': 'false',
        'created_at': null_of(type_utc_timestamp()),
        'updated_at': null_of(type_utc_timestamp()),
        'valid_from': utc('1900-01-01'),
        'valid_to': utc('9999-12-31'),
    }) | indent(4) }}
)

select * from final
