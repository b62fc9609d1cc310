-- One row per version of a customer that ever landed, deletions included.
{%- set columns = [
    'customer_id',
    'location_id',
    'first_name_token',
    'last_name_token',
    'email_token',
    'phone_token',
    'date_of_birth_token',
    'email_domain',
    'kyc_status',
    'birth_year',
    'has_marketing_consent',
    'consent_updated_at',
    'created_at',
] %}
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
        _row_hash as row_hash,
        _deleted_at as deleted_at,
        _load_id as load_id,
        _landed_at as loaded_at
    from {{ source('oltp', 'customer_history') }}
),

final as (
    {{ landed_versions('source', key='customer_id', columns=columns) | indent(4) }}
)

select * from final
