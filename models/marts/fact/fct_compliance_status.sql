-- One row per subject, version of a control and day on which its status changed; it holds until status_until_date.
{{ config(
    materialized='incremental',
    incremental_strategy='append',
    pre_hook="{{ remove_stale('int_compliance_status') }}",
) }}
with

statuses as (
    select
        compliance_status_key,
        row_version,
        subject_type,
        subject_id,
        case when subject_type = 'customer' then subject_id end as customer_id,
        case when subject_type = 'merchant' then subject_id end as merchant_id,
        case when subject_type = 'payment_method' then subject_id end as payment_method_id,
        compliance_key,
        evidence_kind,
        status,
        evidence_key,
        evidence_text,
        source_model,
        observed_at,
        valid_from,
        valid_to,
        is_current,
        loaded_at,
        -- what began with a version of the rules, or with a new day, began at midnight
        case
            when {{ utc_date('observed_at') }} = valid_from then observed_at
            else cast(valid_from as {{ type_utc_timestamp() }})
        end as event_at_utc
    from {{ ref('int_compliance_status') }}
    {{ only_changed() }}
),

controls as (
    select
        compliance_key,
        control_id,
        regulation,
        jurisdiction,
        version
    from {{ ref('dim_compliance') }}
),

customers as (
    select
        customer_version_key,
        customer_key,
        customer_id,
        valid_from,
        valid_to
    from {{ ref('dim_customer_history') }}
),

merchants as (
    select
        merchant_version_key,
        merchant_key,
        merchant_id,
        valid_from,
        valid_to
    from {{ ref('dim_merchant_history') }}
),

payment_methods as (
    select
        payment_method_key,
        payment_method_id
    from {{ ref('dim_payment_method') }}
),

dates as (
    select
        date_key,
        date_day
    from {{ ref('dim_date') }}
),

final as (
    select
        statuses.compliance_status_key,
        statuses.compliance_key,
        coalesce(customers.customer_key, '{{ var("not_applicable_key") }}') as customer_key,
        coalesce(customers.customer_version_key, '{{ var("not_applicable_key") }}') as customer_version_key,
        coalesce(merchants.merchant_key, '{{ var("not_applicable_key") }}') as merchant_key,
        coalesce(merchants.merchant_version_key, '{{ var("not_applicable_key") }}') as merchant_version_key,
        coalesce(payment_methods.payment_method_key, '{{ var("not_applicable_key") }}') as payment_method_key,
        coalesce(dates.date_key, {{ var('unknown_key') }}) as business_date_key,
        statuses.row_version,
        case
            when statuses.source_model like 'stg_mongodb%' then 'mongodb'
            when statuses.subject_type = 'platform' then 'platform'
            else 'oltp'
        end as source_system,
        statuses.subject_type,
        statuses.subject_id,
        controls.control_id,
        controls.regulation,
        controls.jurisdiction,
        controls.version,
        statuses.evidence_kind,
        coalesce(statuses.evidence_key, '{{ var("not_applicable_key") }}') as evidence_key,
        statuses.evidence_text,
        statuses.source_model as evidence_model,
        statuses.status,
        statuses.status = 'met' as is_met,
        statuses.is_current,
        statuses.valid_from as business_date,
        statuses.valid_to as status_until_date,
        statuses.observed_at,
        statuses.event_at_utc,
        coalesce(statuses.observed_at, statuses.event_at_utc) as updated_at,
        statuses.loaded_at
    from statuses
    inner join controls on statuses.compliance_key = controls.compliance_key
    left join customers
        on
            statuses.customer_id = customers.customer_id
            and statuses.event_at_utc >= customers.valid_from
            and statuses.event_at_utc < customers.valid_to
    left join merchants
        on
            statuses.merchant_id = merchants.merchant_id
            and statuses.event_at_utc >= merchants.valid_from
            and statuses.event_at_utc < merchants.valid_to
    left join payment_methods on statuses.payment_method_id = payment_methods.payment_method_id
    left join dates on statuses.valid_from = dates.date_day
)

select * from final
