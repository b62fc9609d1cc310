-- One row per attempt at a payment, raw; `is_final` and the outcome of its retry group count each payment once.
{{ config(
    materialized='incremental',
    incremental_strategy='append',
    pre_hook=[
        "{{ remove_stale(['fct_sales', 'int_payment_attempts']) }}",
        "{{ remove_without_member('fraud_rule_key', 'dim_fraud_rule') }}",
    ],
) }}
with

sales as (
    select
        transaction_key,
        row_version,
        customer_key,
        customer_version_key,
        merchant_key,
        merchant_version_key,
        payment_method_key,
        device_key,
        location_key,
        country_key,
        currency_code,
        reporting_rate,
        is_ever_captured,
        loaded_at
    from {{ ref('fct_sales') }}
    {{ only_changed() }}
),

attempts as (
    select
        attempt_key,
        transaction_key,
        row_version,
        retry_group_key,
        source_system,
        transaction_id,
        attempt_id,
        outcome,
        retry_group_outcome,
        currency_code,
        decline_code,
        decline_reason,
        block_reason,
        three_ds_outcome,
        three_ds_eci,
        sca_exemption,
        fraud_rule,
        amount,
        attempt_number,
        attempts_in_group,
        is_final,
        is_authenticated,
        is_blocked_after_authorization,
        is_orphan,
        attempted_at,
        authenticated_at,
        authorized_at,
        declined_at,
        blocked_at,
        last_event_at,
        loaded_at
    from {{ ref('int_payment_attempts') }}
    {% if is_incremental() -%}
    where
        transaction_key in (select sales.transaction_key from sales)
        or (is_orphan and row_version not in (select built.row_version from {{ this }} as built))
    {%- endif %}
),

time_zones as (
    select
        transaction_key,
        merchant_time_zone
    from {{ ref('int_transactions_unified') }}
    {% if is_incremental() -%}
    where transaction_key in (select sales.transaction_key from sales)
    {%- endif %}
),

currencies as (
    select
        currency_key,
        currency_code
    from {{ ref('dim_currency') }}
),

rules as (
    select
        fraud_rule_key,
        fraud_rule
    from {{ ref('dim_fraud_rule') }}
),

-- the clock that counts is the shop's at the time of the attempt: a retry after midnight belongs to the next day
dated as (
    select
        attempts.attempt_key,
        attempts.transaction_key,
        {%- for key in [
            'customer_key', 'customer_version_key', 'merchant_key', 'merchant_version_key', 'payment_method_key',
            'device_key', 'location_key', 'country_key',
        ] %}
        coalesce(sales.{{ key }}, '{{ var("unknown_key") }}') as {{ key }},
        {%- endfor %}
        {{ key_or_default('currencies.currency_key', 'attempts.currency_code') | indent(8) }} as currency_key,
        {{ key_or_default('rules.fraud_rule_key', 'attempts.fraud_rule') | indent(8) }} as fraud_rule_key,
        {{ local_date('attempts.attempted_at', 'time_zones.merchant_time_zone') }} as business_date,
        {{ local_time_key('attempts.attempted_at', 'time_zones.merchant_time_zone') }} as business_time_key,
        -- an orphan has no sale
        coalesce(sales.row_version, attempts.row_version) as row_version,
        attempts.retry_group_key,
        attempts.source_system,
        attempts.transaction_id,
        attempts.attempt_id,
        attempts.outcome,
        attempts.retry_group_outcome,
        attempts.currency_code,
        attempts.decline_code,
        attempts.decline_reason,
        attempts.block_reason,
        attempts.three_ds_outcome,
        attempts.three_ds_eci,
        attempts.sca_exemption,
        attempts.amount,
        case when attempts.currency_code = sales.currency_code then sales.reporting_rate end as reporting_rate,
        attempts.attempt_number,
        attempts.attempts_in_group,
        attempts.is_final,
        attempts.is_authenticated,
        attempts.is_blocked_after_authorization,
        coalesce(sales.is_ever_captured, false) as is_ever_captured,
        attempts.is_orphan,
        attempts.attempted_at,
        attempts.authenticated_at,
        attempts.authorized_at,
        attempts.declined_at,
        attempts.blocked_at,
        attempts.last_event_at,
        {{ latest_of(['attempts.loaded_at', 'sales.loaded_at']) | indent(8) }} as loaded_at
    from attempts
    left join time_zones on attempts.transaction_key = time_zones.transaction_key
    left join sales on attempts.transaction_key = sales.transaction_key
    left join currencies on attempts.currency_code = currencies.currency_code
    left join rules on attempts.fraud_rule = rules.fraud_rule
),

final as (
    select
        attempt_key,
        transaction_key,
        customer_key,
        customer_version_key,
        merchant_key,
        merchant_version_key,
        payment_method_key,
        device_key,
        location_key,
        country_key,
        currency_key,
        fraud_rule_key,
        {{ role_date_key('business_date') | indent(8) }} as business_date_key,
        coalesce(business_time_key, {{ var('unknown_key') }}) as business_time_key,
        row_version,
        source_system,
        transaction_id,
        attempt_id,
        retry_group_key,
        outcome,
        retry_group_outcome,
        currency_code,
        '{{ var("reporting_currency") }}' as reporting_currency_code,
        decline_code,
        decline_reason,
        block_reason,
        three_ds_outcome,
        three_ds_eci,
        sca_exemption,
        amount,
        {{ convert_money('amount', 'reporting_rate') }} as amount_reporting,
        attempt_number,
        attempts_in_group,
        cast(1 as integer) as attempts_raw,
        cast(case when is_final then 1 else 0 end as integer) as attempts_deduplicated,
        is_final,
        is_authenticated,
        outcome = 'authorized' as is_authorized,
        outcome = 'declined' as is_declined,
        outcome = 'blocked' as is_blocked,
        outcome = 'incomplete' as is_incomplete,
        is_blocked_after_authorization,
        is_ever_captured,
        is_orphan,
        attempted_at as event_at_utc,
        authenticated_at,
        authorized_at,
        declined_at,
        blocked_at,
        last_event_at as updated_at,
        loaded_at
    from dated
)

select * from final
