-- One row per country of ISO 3166-1, with its region and what data-protection law says of it.
with

countries as (
    select
        country_code,
        alpha3_code,
        numeric_code,
        country_name,
        region,
        is_eu,
        is_eea,
        has_adequacy_decision
    from {{ ref('countries') }}
),

-- two documents may describe one country
regions as (
    select distinct country_code
    from {{ ref('stg_mongodb__country_region_codes') }}
),

final as (
    select
        {{ member_key('countries.country_code') }} as country_key,
        countries.country_code,
        countries.alpha3_code,
        countries.numeric_code,
        countries.country_name,
        countries.region,
        regions.country_code is not null as is_served,
        countries.is_eu,
        countries.is_eea,
        countries.has_adequacy_decision,
        -- GDPR 44: whether personal data may go there without further safeguards
        countries.is_eea or countries.has_adequacy_decision as is_free_transfer_destination
    from countries
    left join regions on countries.country_code = regions.country_code
    union all
    {{ default_members({
        'country_key': 'key',
        'country_code': 'label',
        'alpha3_code': null_of(type_text()),
        'numeric_code': null_of(type_text()),
        'country_name': 'label',
        'region': null_of(type_text()),
        'is_served': 'false',
        'is_eu': 'false',
        'is_eea': 'false',
        'has_adequacy_decision': 'false',
        'is_free_transfer_destination': 'false',
    }) | indent(4) }}
)

select * from final
