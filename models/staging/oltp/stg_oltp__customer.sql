-- One row per customer, as the OLTP system has them now.
with

source as (
    select
        customer_id,
        location_id,
        first_name_token,
        last_name_token,
        email_token,
        phone_token,
        date_of_birth_token,
        email_domain,
        kyc_status,
        birth_year,
        marketing_consent as has_marketing_consent,
        consent_updated_at,
        created_at,
        updated_at,
        _landed_at as loaded_at,
        _deleted_at as deleted_at
    from {{ source('oltp', 'customer') }}
),

-- a row that is gone at the source stays in raw as a soft delete; its past is in the history
final as (
    select
        customer_id,
        location_id,
        first_name_token,
        last_name_token,
        email_token,
        phone_token,
        date_of_birth_token,
        email_domain,
        kyc_status,
        birth_year,
        has_marketing_consent,
        consent_updated_at,
        created_at,
        updated_at,
        loaded_at
    from source
    where deleted_at is null
)

select * from final
