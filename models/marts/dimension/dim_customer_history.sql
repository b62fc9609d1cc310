-- One row per version of a customer: what was known of them, and from when to when.
with

customer_versions as (
    select
        customer_id,
        valid_from,
        location_id,
        email_domain,
        birth_year,
        updated_at,
        kyc_status,
        version_number,
        has_marketing_consent,
        is_current,
        is_deleted,
        is_inferred,
        consent_updated_at,
        created_at,
        valid_to
    from {{ ref('int_customer_versions') }}
),

locations as (
    select
        location_key,
        country_code,
        location_id
    from {{ ref('dim_location') }}
),

final as (
    select
        {{ member_version_key('customer_versions.customer_id', 'customer_versions.valid_from') }}
            as customer_version_key,
        {{ member_key('customer_versions.customer_id') }} as customer_key,
        {{ key_or_default('locations.location_key', 'customer_versions.location_id') }} as location_key,
        customer_versions.customer_id,
        {{ mask_email_domain('customer_versions.email_domain') }} as email_domain_group,
        -- as of the version, not of today: a rebuild next year must give the same rows
        {{ mask_birth_year('customer_versions.birth_year', 'customer_versions.updated_at') }} as age_band,
        locations.country_code,
        customer_versions.kyc_status,
        cast(customer_versions.version_number as integer) as version_number,
        customer_versions.has_marketing_consent,
        customer_versions.is_current,
        customer_versions.is_deleted,
        customer_versions.is_inferred,
        customer_versions.consent_updated_at,
        customer_versions.created_at,
        customer_versions.updated_at,
        customer_versions.valid_from,
        customer_versions.valid_to
    from customer_versions
    left join locations on customer_versions.location_id = locations.location_id
    union all
    {{ default_members({
        'customer_version_key': 'key',
        'customer_key': 'key',
        'location_key': "'" ~ var('not_applicable_key') ~ "'",
        'customer_id': 'label',
        'email_domain_group': null_of(type_text()),
        'age_band': null_of(type_text()),
        'country_code': null_of(type_text()),
        'kyc_status': null_of(type_text()),
        'version_number': 'cast(1 as integer)',
        'has_marketing_consent': null_of('boolean'),
        'is_current': 'true',
        'is_deleted': 'false',
        'is_inferred': 'false',
        'consent_updated_at': null_of(type_utc_timestamp()),
        'created_at': null_of(type_utc_timestamp()),
        'updated_at': null_of(type_utc_timestamp()),
        'valid_from': utc('1900-01-01'),
        'valid_to': utc('9999-12-31'),
    }) | indent(4) }}
)

select * from final
