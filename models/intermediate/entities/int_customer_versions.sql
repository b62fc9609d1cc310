-- One row per customer and version: who they were, from when to when.
{%- set attributes = [
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

history as (
    select
        {{ canonical_customer_id('customer_id') }} as customer_id,
        {%- for attribute in attributes %}
        {{ attribute }},
        {%- endfor %}
        is_deleted,
        effective_at,
        updated_at,
        row_hash,
        load_id,
        loaded_at
    from {{ ref('stg_oltp__customer_history') }}
),

crosswalk as (
    select canonical_id
    from {{ ref('int_entity_crosswalk') }}
    where entity_type = 'customer'
),

landed as (
    {{ version_intervals('history', key='customer_id', attributes=attributes) | indent(4) }}
),

-- named by a payment or a comment, never landed themselves: they keep their key when their record arrives
inferred as (
    select distinct crosswalk.canonical_id as customer_id
    from crosswalk
    left join landed on crosswalk.canonical_id = landed.customer_id
    where landed.customer_id is null
),

final as (
    select
        customer_id,
        version_number,
        {%- for attribute in attributes %}
        {{ attribute }},
        {%- endfor %}
        is_current,
        is_deleted,
        false as is_inferred,
        valid_from,
        valid_to,
        updated_at,
        loaded_at
    from landed

    union all

    select
        customer_id,
        1 as version_number,
        {%- for attribute in attributes %}
        null as {{ attribute }},
        {%- endfor %}
        true as is_current,
        false as is_deleted,
        true as is_inferred,
        {{ utc('1900-01-01') }} as valid_from,
        {{ utc('9999-12-31') }} as valid_to,
        null as updated_at,
        null as loaded_at
    from inferred
)

select * from final
