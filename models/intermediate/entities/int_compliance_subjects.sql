-- One row per subject, jurisdiction that applies to it, and first day on which it did.
{%- set open_end = "cast('9999-12-31' as date)" %}
with

locations as (
    select
        location_id,
        country_code,
        region_code
    from {{ ref('stg_oltp__location') }}
),

jurisdictions as (
    select
        country_code,
        jurisdiction,
        valid_from,
        valid_to
    from {{ ref('int_country_jurisdictions') }}
),

-- a customer whom only a payment names has no record to judge, one who is gone has no duty left
customers as (
    select
        customer_id,
        location_id,
        {{ utc_date('case when version_number = 1 then coalesce(created_at, updated_at) else valid_from end') }}
            as valid_from,
        {{ utc_date('valid_to') }} as valid_to,
        loaded_at
    from {{ ref('int_customer_versions') }}
    where
        not is_inferred
        and not is_deleted
),

merchants as (
    select
        merchant_id,
        location_id,
        {{ utc_date('case when version_number = 1 then coalesce(onboarded_at, updated_at) else valid_from end') }}
            as valid_from,
        {{ utc_date('valid_to') }} as valid_to,
        loaded_at
    from {{ ref('int_merchant_versions') }}
    where
        not is_inferred
        and not is_deleted
),

payment_methods as (
    select
        payment_method_id,
        {{ utc_date('coalesce(created_at, updated_at)') }} as valid_from,
        loaded_at
    from {{ ref('stg_oltp__payment_method') }}
),

first_days as (
    select
        min(business_date) as valid_from,
        max(loaded_at) as loaded_at
    from {{ ref('int_transactions_unified') }}
    where event_at_utc <= loaded_at
),

residents as (
    select
        'customer' as subject_type,
        customers.customer_id as subject_id,
        locations.country_code,
        locations.region_code,
        customers.valid_from,
        customers.valid_to,
        customers.loaded_at
    from customers
    inner join locations on customers.location_id = locations.location_id

    union all

    select
        'merchant' as subject_type,
        merchants.merchant_id as subject_id,
        locations.country_code,
        locations.region_code,
        merchants.valid_from,
        merchants.valid_to,
        merchants.loaded_at
    from merchants
    inner join locations on merchants.location_id = locations.location_id
),

-- rules follow the country on the day: who moves, or whose country leaves the Union, changes jurisdiction
subjects as (
    select
        residents.subject_type,
        residents.subject_id,
        jurisdictions.jurisdiction,
        greatest(residents.valid_from, jurisdictions.valid_from) as valid_from,
        least(residents.valid_to, jurisdictions.valid_to) as valid_to,
        residents.loaded_at
    from residents
    inner join jurisdictions on residents.country_code = jurisdictions.country_code

    union all

    select
        subject_type,
        subject_id,
        'US-CA' as jurisdiction,
        valid_from,
        valid_to,
        loaded_at
    from residents
    where region_code = 'US-CA'

    union all

    select
        'merchant' as subject_type,
        merchant_id as subject_id,
        'GLOBAL' as jurisdiction,
        valid_from,
        valid_to,
        loaded_at
    from merchants

    union all

    select
        'payment_method' as subject_type,
        payment_method_id as subject_id,
        'GLOBAL' as jurisdiction,
        valid_from,
        {{ open_end }} as valid_to,
        loaded_at
    from payment_methods

    {%- for jurisdiction in ['GLOBAL', 'EU', 'UK', 'CH', 'US', 'US-CA'] %}

    union all

    select
        'platform' as subject_type,
        'platform' as subject_id,
        '{{ jurisdiction }}' as jurisdiction,
        valid_from,
        {{ open_end }} as valid_to,
        loaded_at
    from first_days
    {%- endfor %}
),

final as (
    select
        subject_type,
        subject_id,
        jurisdiction,
        valid_from,
        -- two versions of one day: the later one speaks for the day
        max(valid_to) as valid_to,
        max(loaded_at) as loaded_at
    from subjects
    where valid_from < valid_to
    group by subject_type, subject_id, jurisdiction, valid_from
)

select * from final
