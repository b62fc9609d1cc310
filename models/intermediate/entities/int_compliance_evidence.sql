-- One row per observation that answers for a control: about whom, what kind, what it said, and when it was so.
{%- set day_end = "cast('9999-12-31' as date)" %}
with

loads as (
    select
        load_id,
        table_name,
        load_status,
        source_rows,
        unchanged_rows,
        landed_rows,
        quarantined_rows,
        finished_at
    from {{ ref('stg_ops__load_manifest') }}
    where finished_at is not null
),

builds as (
    select
        step_status,
        finished_at
    from {{ ref('stg_ops__run_steps') }}
    where step_name = 'build'
),

measurements as (
    select
        evidence_kind,
        conforming_count,
        measured_count,
        what,
        measured_at
    from {{ ref('int_platform_measurements') }}
),

customers as (
    select
        customer_id,
        kyc_status,
        has_marketing_consent,
        consent_updated_at,
        case when version_number = 1 then coalesce(updated_at, created_at) else valid_from end as observed_at,
        loaded_at
    from {{ ref('int_customer_versions') }}
    where
        not is_inferred
        and not is_deleted
),

transactions as (
    select
        customer_id,
        event_at_utc,
        loaded_at
    from {{ ref('int_transactions_unified') }}
    where
        customer_id is not null
        and event_at_utc <= loaded_at
),

merchant_versions as (
    select
        merchant_id,
        location_id,
        risk_tier,
        merchant_category_code,
        case when version_number = 1 then coalesce(onboarded_at, updated_at) else valid_from end as observed_at,
        valid_from,
        valid_to,
        loaded_at
    from {{ ref('int_merchant_versions') }}
    where
        not is_inferred
        and not is_deleted
),

merchant_documents as (
    select
        {{ canonical_merchant_id('merchant_id') }} as merchant_id,
        documents_count,
        documents_verified_count,
        owners_count,
        effective_at as observed_at,
        coalesce(
            lead(effective_at) over (
                partition by {{ canonical_merchant_id('merchant_id') }}
                order by effective_at, loaded_at, row_hash
            ),
            {{ utc('9999-12-31') }}
        ) as valid_to,
        is_deleted,
        loaded_at
    from {{ ref('stg_mongodb__merchants_history') }}
    where effective_at is not null
),

categories as (
    select
        merchant_category_code,
        is_high_risk
    from {{ ref('merchant_category_codes') }}
),

locations as (
    select
        location_id,
        country_code
    from {{ ref('stg_oltp__location') }}
),

watched_countries as (
    select
        country_code,
        cast(valid_from as {{ type_utc_timestamp() }}) as valid_from,
        cast(coalesce(valid_to, {{ day_end }}) as {{ type_utc_timestamp() }}) as valid_to
    from {{ ref('country_memberships') }}
    where list_name in ('FATF_BLACK', 'FATF_GREY')
),

payment_methods as (
    select
        payment_method_id,
        card_number_token,
        card_number_bin,
        card_number_last4,
        coalesce(updated_at, created_at) as observed_at,
        loaded_at
    from {{ ref('stg_oltp__payment_method') }}
),

payment_days as (
    select
        merchant_id,
        business_date,
        in_scope_count,
        covered_count,
        risk_analysis_count,
        risk_analysis_within_limit_count,
        european_customer_count,
        third_country_count,
        adequate_country_count,
        last_event_at,
        loaded_at
    from {{ ref('int_payment_compliance_daily') }}
),

last_load as (
    select max(finished_at) as known_until
    from loads
),

-- customers -----------------------------------------------------------------------------------------------------------
customer_identity as (
    select
        'customer' as subject_type,
        customer_id as subject_id,
        'customer_identity' as evidence_kind,
        case
            when kyc_status = 'verified' then 'met'
            when kyc_status is not null then 'not_met'
            else 'no_evidence'
        end as status,
        'identity ' || coalesce(kyc_status, 'not recorded') as evidence_text,
        'int_customer_versions' as source_model,
        observed_at,
        loaded_at
    from customers
),

-- a consent without the time at which it was given shows nothing; where none is claimed, none has to be shown
customer_consent as (
    select
        'customer' as subject_type,
        customer_id as subject_id,
        'customer_consent' as evidence_kind,
        case
            when has_marketing_consent and consent_updated_at <= observed_at then 'met'
            when has_marketing_consent then 'not_met'
            when not has_marketing_consent then 'not_applicable'
            else 'no_evidence'
        end as status,
        case
            when has_marketing_consent and consent_updated_at <= observed_at then 'consent recorded with its time'
            when has_marketing_consent and consent_updated_at is null then 'consent recorded without its time'
            when has_marketing_consent then 'consent recorded with a later time'
            when not has_marketing_consent then 'no consent relied upon'
            else 'consent not recorded'
        end as evidence_text,
        'int_customer_versions' as source_model,
        observed_at,
        loaded_at
    from customers
),

known_customers as (
    select distinct customer_id
    from customers
),

payment_spans as (
    select
        transactions.customer_id,
        min(transactions.event_at_utc) as first_payment_at,
        max(transactions.event_at_utc) as last_payment_at,
        max(transactions.loaded_at) as loaded_at
    from transactions
    inner join known_customers on transactions.customer_id = known_customers.customer_id
    group by transactions.customer_id
),

-- kept from the first payment on; kept too long once the period after the last one is over and the record still stands
record_retention as (
    {%- for years in [5, 10] %}
    select
        'customer' as subject_type,
        customer_id as subject_id,
        'record_retention_{{ years }}_years' as evidence_kind,
        'met' as status,
        'records kept, period of {{ years }} years not over' as evidence_text,
        'int_transactions_unified' as source_model,
        first_payment_at as observed_at,
        loaded_at
    from payment_spans

    union all

    select
        'customer' as subject_type,
        customer_id as subject_id,
        'record_retention_{{ years }}_years' as evidence_kind,
        'not_met' as status,
        'records kept, period of {{ years }} years over' as evidence_text,
        'int_transactions_unified' as source_model,
        cast({{ dbt.dateadd('year', years, 'last_payment_at') }} as {{ type_utc_timestamp() }}) as observed_at,
        loaded_at
    from payment_spans
    {{ 'union all' if not loop.last }}
    {%- endfor %}
),

-- merchants -----------------------------------------------------------------------------------------------------------
merchant_ownership as (
    select
        'merchant' as subject_type,
        merchant_id as subject_id,
        'merchant_ownership' as evidence_kind,
        case
            when is_deleted then 'no_evidence'
            when owners_count > 0 and documents_count > 0 and documents_verified_count = documents_count then 'met'
            else 'not_met'
        end as status,
        cast(owners_count as {{ type_text() }}) || ' owners, '
        || cast(documents_verified_count as {{ type_text() }}) || ' of '
        || cast(documents_count as {{ type_text() }}) || ' documents verified' as evidence_text,
        'stg_mongodb__merchants_history' as source_model,
        observed_at,
        loaded_at
    from merchant_documents
),

-- every time at which something changed that due diligence looks at
merchant_moments as (
    select
        merchant_id,
        observed_at
    from merchant_versions

    union

    select
        merchant_id,
        observed_at
    from merchant_documents

    union

    select
        merchant_versions.merchant_id,
        watched_countries.valid_from as observed_at
    from merchant_versions
    inner join locations on merchant_versions.location_id = locations.location_id
    inner join watched_countries on locations.country_code = watched_countries.country_code
    where watched_countries.valid_from > merchant_versions.observed_at

    union

    select
        merchant_versions.merchant_id,
        watched_countries.valid_to as observed_at
    from merchant_versions
    inner join locations on merchant_versions.location_id = locations.location_id
    inner join watched_countries on locations.country_code = watched_countries.country_code
    where watched_countries.valid_to > merchant_versions.observed_at
),

-- one row per moment: a country may be on one of the two lists at a time
merchant_states as (
    select
        merchant_moments.merchant_id,
        merchant_moments.observed_at,
        coalesce(merchant_versions.risk_tier = 'high', false) as is_high_risk_merchant,
        coalesce(categories.is_high_risk, false) as is_high_risk_category,
        watched_countries.country_code is not null as is_watched_country,
        coalesce(
            merchant_documents.documents_count > 0
            and merchant_documents.documents_verified_count = merchant_documents.documents_count
            and merchant_documents.owners_count > 0,
            false
        ) as is_documented,
        merchant_documents.merchant_id is not null and not merchant_documents.is_deleted as has_documents,
        greatest(
            merchant_versions.loaded_at, coalesce(merchant_documents.loaded_at, merchant_versions.loaded_at)
        ) as loaded_at
    from merchant_moments
    inner join merchant_versions
        on
            merchant_moments.merchant_id = merchant_versions.merchant_id
            and merchant_moments.observed_at >= merchant_versions.valid_from
            and merchant_moments.observed_at < merchant_versions.valid_to
    left join merchant_documents
        on
            merchant_moments.merchant_id = merchant_documents.merchant_id
            and merchant_moments.observed_at >= merchant_documents.observed_at
            and merchant_moments.observed_at < merchant_documents.valid_to
    left join categories on merchant_versions.merchant_category_code = categories.merchant_category_code
    left join locations on merchant_versions.location_id = locations.location_id
    left join watched_countries
        on
            locations.country_code = watched_countries.country_code
            and merchant_moments.observed_at >= watched_countries.valid_from
            and merchant_moments.observed_at < watched_countries.valid_to
),

merchant_due_diligence as (
    select
        'merchant' as subject_type,
        merchant_id as subject_id,
        'merchant_due_diligence' as evidence_kind,
        case
            when not (is_high_risk_merchant or is_high_risk_category or is_watched_country) then 'not_applicable'
            when not has_documents then 'no_evidence'
            when is_documented then 'met'
            else 'not_met'
        end as status,
        case
            when is_watched_country then 'country on a list of the FATF'
            when is_high_risk_category then 'category of high risk'
            when is_high_risk_merchant then 'merchant of high risk'
            else 'no higher risk'
        end
        || case
            when not has_documents then ', no documents'
            when is_documented then ', owners known, all documents verified'
            else ', owners or documents missing'
        end as evidence_text,
        'int_merchant_versions' as source_model,
        observed_at,
        loaded_at
    from merchant_states
),

payment_authentication as (
    select
        'merchant' as subject_type,
        merchant_id as subject_id,
        'payment_authentication' as evidence_kind,
        case when covered_count = in_scope_count then 'met' else 'not_met' end as status,
        cast(covered_count as {{ type_text() }}) || ' of ' || cast(in_scope_count as {{ type_text() }})
        || ' payments authenticated or exempted' as evidence_text,
        'int_payment_compliance_daily' as source_model,
        last_event_at as observed_at,
        loaded_at
    from payment_days
    where in_scope_count > 0
),

risk_analysis_exemption as (
    select
        'merchant' as subject_type,
        merchant_id as subject_id,
        'risk_analysis_exemption' as evidence_kind,
        case when risk_analysis_within_limit_count = risk_analysis_count then 'met' else 'not_met' end as status,
        cast(risk_analysis_within_limit_count as {{ type_text() }}) || ' of '
        || cast(risk_analysis_count as {{ type_text() }}) || ' exempted payments within the limit' as evidence_text,
        'int_payment_compliance_daily' as source_model,
        last_event_at as observed_at,
        loaded_at
    from payment_days
    where risk_analysis_count > 0
),

-- payment methods -----------------------------------------------------------------------------------------------------
card_number_protection as (
    select
        'payment_method' as subject_type,
        payment_method_id as subject_id,
        'card_number_protection' as evidence_kind,
        case
            when card_number_token is null and {{ visible_digits('card_number_bin') }} is null then 'not_applicable'
            when
                card_number_token is not null
                and {{ visible_digits('card_number_bin') }} in (6, 8)
                and {{ visible_digits('card_number_last4') }} = 4
                then 'met'
            else 'not_met'
        end as status,
        case
            when card_number_token is null and {{ visible_digits('card_number_bin') }} is null then 'no card number'
            else
                'token, '
                || cast(coalesce({{ visible_digits('card_number_bin') }}, 0) as {{ type_text() }}) || ' first and '
                || cast(coalesce({{ visible_digits('card_number_last4') }}, 0) as {{ type_text() }}) || ' last digits'
        end as evidence_text,
        'stg_oltp__payment_method' as source_model,
        observed_at,
        loaded_at
    from payment_methods
),

keyed_token as (
    select
        'payment_method' as subject_type,
        payment_method_id as subject_id,
        'keyed_token' as evidence_kind,
        case
            when card_number_token is null then 'not_applicable'
            when card_number_token like 'v%:%' then 'met'
            else 'not_met'
        end as status,
        case
            when card_number_token is null then 'no card number'
            when card_number_token like 'v%:%' then 'token under a versioned key'
            else 'token without the version of its key'
        end as evidence_text,
        'stg_oltp__payment_method' as source_model,
        observed_at,
        loaded_at
    from payment_methods
),

-- the platform --------------------------------------------------------------------------------------------------------
load_days as (
    select
        {{ utc_date('finished_at') }} as load_date,
        max(finished_at) as finished_at,
        count(*) as loads_count,
        sum(
            case
                when load_status = 'completed' and source_rows = unchanged_rows + landed_rows + quarantined_rows then 1
                else 0
            end
        ) as balanced_count
    from loads
    group by {{ utc_date('finished_at') }}
),

load_gaps as (
    select
        finished_at,
        loads_count,
        balanced_count,
        cast({{ dbt.dateadd('hour', var('load_interval_hours'), 'finished_at') }} as {{ type_utc_timestamp() }})
            as expected_at,
        lead(finished_at) over (order by finished_at) as next_finished_at
    from load_days
),

loads_complete as (
    select
        'platform' as subject_type,
        'platform' as subject_id,
        'loads_complete' as evidence_kind,
        case when balanced_count = loads_count then 'met' else 'not_met' end as status,
        cast(balanced_count as {{ type_text() }}) || ' of ' || cast(loads_count as {{ type_text() }})
        || ' loads complete and balanced' as evidence_text,
        'stg_ops__load_manifest' as source_model,
        finished_at as observed_at,
        finished_at as loaded_at
    from load_gaps

    union all

    select
        'platform' as subject_type,
        'platform' as subject_id,
        'loads_complete' as evidence_kind,
        'not_met' as status,
        'nothing landed for {{ var("load_interval_hours") }} hours' as evidence_text,
        'stg_ops__load_manifest' as source_model,
        expected_at as observed_at,
        next_finished_at as loaded_at
    from load_gaps
    where next_finished_at > expected_at
),

-- a build completes only if every invariant held, the search for card numbers in published text among them
published_text_scan as (
    select
        'platform' as subject_type,
        'platform' as subject_id,
        'published_text_scan' as evidence_kind,
        case when step_status = 'completed' then 'met' else 'not_met' end as status,
        'build ' || step_status || ', with the search for card numbers in published text' as evidence_text,
        'stg_ops__run_steps' as source_model,
        finished_at as observed_at,
        finished_at as loaded_at
    from builds
),

measured as (
    select
        'platform' as subject_type,
        'platform' as subject_id,
        evidence_kind,
        case when conforming_count = measured_count then 'met' else 'not_met' end as status,
        cast(conforming_count as {{ type_text() }}) || ' of ' || cast(measured_count as {{ type_text() }}) || ' '
        || what as evidence_text,
        'int_platform_measurements' as source_model,
        measured_at as observed_at,
        measured_at as loaded_at
    from measurements
),

transfer_days as (
    select
        business_date,
        sum(european_customer_count) as european_customer_count,
        sum(third_country_count) as third_country_count,
        sum(adequate_country_count) as adequate_country_count,
        max(last_event_at) as observed_at,
        max(loaded_at) as loaded_at
    from payment_days
    group by business_date
),

transfer_destinations as (
    select
        'platform' as subject_type,
        'platform' as subject_id,
        'transfer_destinations' as evidence_kind,
        case when adequate_country_count = third_country_count then 'met' else 'not_met' end as status,
        cast(third_country_count - adequate_country_count as {{ type_text() }}) || ' of '
        || cast(european_customer_count as {{ type_text() }})
        || ' payments of European customers to a country without an adequacy decision' as evidence_text,
        'int_payment_compliance_daily' as source_model,
        observed_at,
        loaded_at
    from transfer_days
    where european_customer_count > 0
),

observations as (
    {%- for kind in [
        'customer_identity', 'customer_consent', 'record_retention', 'merchant_ownership', 'merchant_due_diligence',
        'payment_authentication', 'risk_analysis_exemption', 'card_number_protection', 'keyed_token',
        'loads_complete', 'published_text_scan', 'measured', 'transfer_destinations',
    ] %}
    select
        subject_type,
        subject_id,
        evidence_kind,
        status,
        evidence_text,
        source_model,
        observed_at,
        loaded_at
    from {{ kind }}
    {{ 'union all' if not loop.last }}
    {%- endfor %}
),

-- what is dated after the last load (a skewed clock, the end of a period to come) is not known yet
final as (
    select
        {{ hash_key([
            'observations.subject_type',
            'observations.subject_id',
            'observations.evidence_kind',
            utc_microseconds('observations.observed_at'),
            'observations.evidence_text',
        ]) }} as evidence_key,
        observations.subject_type,
        observations.subject_id,
        observations.evidence_kind,
        observations.status,
        observations.evidence_text,
        observations.source_model,
        observations.observed_at,
        max(observations.loaded_at) as loaded_at
    from observations
    inner join last_load on observations.observed_at <= last_load.known_until
    group by
        observations.subject_type,
        observations.subject_id,
        observations.evidence_kind,
        observations.status,
        observations.evidence_text,
        observations.source_model,
        observations.observed_at
)

select * from final
