-- One row per country of ISO 3166-1, with its region and what data-protection law says of it.
with

countries as (
    select
        country_code,
        alpha3_code,
        numeric_code,
        country_name,
        region
    from {{ ref('countries') }}
),

-- as the lists stand now; what held on an earlier day is in country_memberships
memberships as (
    select
        country_code,
        max(case when list_name = 'EU' then 1 else 0 end) = 1 as is_eu,
        max(case when list_name = 'EEA' then 1 else 0 end) = 1 as is_eea,
        max(case when list_name = 'GDPR_ADEQUACY' then 1 else 0 end) = 1 as has_adequacy_decision,
        max(case when list_name = 'FATF_BLACK' then 1 else 0 end) = 1 as is_fatf_high_risk,
        max(case when list_name = 'FATF_GREY' then 1 else 0 end) = 1 as is_fatf_monitored
    from {{ ref('country_memberships') }}
    where valid_to is null
    group by country_code
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
        coalesce(memberships.is_eu, false) as is_eu,
        coalesce(memberships.is_eea, false) as is_eea,
        coalesce(memberships.has_adequacy_decision, false) as has_adequacy_decision,
        -- GDPR 44: whether personal data may go there without further safeguards
        coalesce(memberships.is_eea or memberships.has_adequacy_decision, false) as is_free_transfer_destination,
        coalesce(memberships.is_fatf_high_risk, false) as is_fatf_high_risk,
        coalesce(memberships.is_fatf_monitored, false) as is_fatf_monitored
    from countries
    left join memberships on countries.country_code = memberships.country_code
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
        'is_fatf_high_risk': 'false',
        'is_fatf_monitored': 'false',
    }) | indent(4) }}
)

select * from final
