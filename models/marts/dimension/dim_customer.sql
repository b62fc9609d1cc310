-- One row per customer, as they are known now; every earlier version is in dim_customer_history.
with

final as (
    select
        customer_key,
        customer_version_key,
        location_key,
        customer_id,
        email_domain_group,
        age_band,
        country_code,
        kyc_status,
        version_number as versions,
        has_marketing_consent,
        is_deleted,
        is_inferred,
        consent_updated_at,
        created_at,
        updated_at
    from {{ ref('dim_customer_history') }}
    where is_current
)

select * from final
