-- One row per merchant and version: identity and settlement from OLTP, today's profile from the onboarding documents.
{%- set attributes = [
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
{%- set profile = [
    'profile_trade_name',
    'profile_category_code',
    'website',
    'support_email_domain',
    'profile_country',
    'employees_count',
    'documents_count',
    'documents_verified_count',
    'owners_count',
    'has_pep_owner_token',
] %}
with

history as (
    select
        {{ canonical_merchant_id('merchant_id') }} as merchant_id,
        {%- for attribute in attributes %}
        {{ attribute }},
        {%- endfor %}
        is_deleted,
        effective_at,
        updated_at,
        row_hash,
        load_id,
        loaded_at
    from {{ ref('stg_oltp__merchant_history') }}
),

documents as (
    select
        {{ canonical_merchant_id('merchant_id') }} as merchant_id,
        {%- for column in profile %}
        {{ column }},
        {%- endfor %}
        row_number() over (
            partition by {{ canonical_merchant_id('merchant_id') }}
            order by updated_at desc, document_id desc
        ) as recency
    from {{ ref('stg_mongodb__merchants') }}
),

crosswalk as (
    select canonical_id
    from {{ ref('int_entity_crosswalk') }}
    where entity_type = 'merchant'
),

landed as (
    {{ version_intervals('history', key='merchant_id', attributes=attributes) | indent(4) }}
),

inferred as (
    select distinct crosswalk.canonical_id as merchant_id
    from crosswalk
    left join landed on crosswalk.canonical_id = landed.merchant_id
    where landed.merchant_id is null
),

versions as (
    select
        merchant_id,
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
        merchant_id,
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
),

-- type 1: every version of a merchant shows the profile as it is today
final as (
    select
        versions.merchant_id,
        versions.version_number,
        {%- for attribute in attributes if attribute != 'trade_name' %}
        versions.{{ attribute }},
        {%- endfor %}
        {%- for column in profile %}
        documents.{{ column }},
        {%- endfor %}
        -- a shop that only the onboarding team knows goes by the name it has there
        case
            when versions.is_inferred then documents.profile_trade_name
            else versions.trade_name
        end as trade_name,
        documents.merchant_id is not null as has_profile,
        versions.is_current,
        versions.is_deleted,
        versions.is_inferred,
        versions.valid_from,
        versions.valid_to,
        versions.updated_at,
        versions.loaded_at
    from versions
    left join documents
        on
            versions.merchant_id = documents.merchant_id
            and documents.recency = 1
)

select * from final
