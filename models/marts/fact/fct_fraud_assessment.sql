-- One row per payment and assessment: a score, a rule that fired, a block or a review. No loss amounts.
{{ config(
    materialized='incremental',
    incremental_strategy='append',
    pre_hook="{{ remove_stale('int_fraud_assessments') }}",
) }}
with

assessments as (
    select
        assessment_key,
        transaction_key,
        row_version,
        source_system,
        transaction_id,
        assessment_type,
        assessment_id,
        fraud_rule,
        result,
        score,
        rule_weight,
        assessed_at,
        loaded_at
    from {{ ref('int_fraud_assessments') }}
    {{ only_changed() }}
),

time_zones as (
    select
        transaction_key,
        merchant_time_zone
    from {{ ref('int_transactions_unified') }}
    {% if is_incremental() -%}
    where transaction_key in (select transaction_key from assessments)
    {%- endif %}
),

sales as (
    select
        transaction_key,
        customer_key,
        customer_version_key,
        merchant_key,
        merchant_version_key,
        payment_method_key,
        device_key,
        country_key,
        updated_at,
        loaded_at
    from {{ ref('fct_sales') }}
    {% if is_incremental() -%}
    where transaction_key in (select transaction_key from assessments)
    {%- endif %}
),

rules as (
    select
        fraud_rule_key,
        fraud_rule
    from {{ ref('dim_fraud_rule') }}
),

dated as (
    select
        assessments.assessment_key,
        {{ local_date('assessments.assessed_at', 'time_zones.merchant_time_zone') }} as business_date
    from assessments
    left join time_zones on assessments.transaction_key = time_zones.transaction_key
),

final as (
    select
        assessments.assessment_key,
        assessments.transaction_key,
        {%- for key in [
            'customer_key', 'customer_version_key', 'merchant_key', 'merchant_version_key', 'payment_method_key',
            'device_key', 'country_key',
        ] %}
        coalesce(sales.{{ key }}, '{{ var("unknown_key") }}') as {{ key }},
        {%- endfor %}
        {{ key_or_default('rules.fraud_rule_key', 'assessments.fraud_rule') | indent(8) }} as fraud_rule_key,
        {{ role_date_key('dated.business_date') | indent(8) }} as business_date_key,
        assessments.row_version,
        assessments.source_system,
        assessments.transaction_id,
        assessments.assessment_type,
        assessments.assessment_id,
        assessments.result,
        assessments.score,
        assessments.rule_weight,
        sales.transaction_key is null as is_orphan,
        assessments.assessed_at as event_at_utc,
        sales.updated_at,
        {{ latest_of(['assessments.loaded_at', 'sales.loaded_at']) | indent(8) }} as loaded_at
    from assessments
    left join dated on assessments.assessment_key = dated.assessment_key
    left join sales on assessments.transaction_key = sales.transaction_key
    left join rules on assessments.fraud_rule = rules.fraud_rule
)

select * from final
