-- One row per payment: when each step of its life was reached, and how long each took. It accumulates as steps come.
{{ config(
    materialized='incremental',
    incremental_strategy='append',
    pre_hook="{{ remove_stale('fct_sales') }}",
) }}
{%- set lags = {
    'seconds_to_authorization': ('attempted_at', 'authorized_at'),
    'seconds_to_capture': ('authorized_at', 'captured_at'),
    'settlement_lag_seconds': ('captured_at', 'available_at'),
    'seconds_to_first_refund': ('captured_at', 'first_refund_at'),
    'seconds_to_dispute': ('captured_at', 'dispute_opened_at'),
    'seconds_to_dispute_decision': ('dispute_opened_at', 'dispute_decided_at'),
    'seconds_to_fraud_report': ('captured_at', 'fraud_reported_at'),
} %}
{%- set roles = ['authorized', 'available', 'first_refund', 'dispute_opened', 'dispute_decided', 'fraud_reported'] %}
with

sales as (
    select
        transaction_key,
        row_version,
        customer_key,
        customer_version_key,
        merchant_key,
        merchant_version_key,
        product_key,
        product_version_key,
        payment_method_key,
        device_key,
        location_key,
        country_key,
        currency_key,
        status_key,
        business_date_key,
        captured_date_key,
        transaction_id,
        source_system,
        status_code,
        currency_code,
        is_ever_captured,
        event_at_utc,
        updated_at,
        loaded_at
    from {{ ref('fct_sales') }}
    {{ only_changed() }}
),

time_zones as (
    select
        transaction_key,
        merchant_time_zone
    from {{ ref('int_transactions_unified') }}
    {% if is_incremental() -%}
    where transaction_key in (select transaction_key from sales)
    {%- endif %}
),

milestones as (
    select
        transaction_key,
        attempts_count,
        refunds_count,
        disputes_count,
        attempted_at,
        authenticated_at,
        authorized_at,
        declined_at,
        blocked_at,
        captured_at,
        available_at,
        first_refund_at,
        inquiry_opened_at,
        dispute_opened_at,
        dispute_won_at,
        dispute_lost_at,
        -- of a payment with several disputes, when the first of them was decided
        least(
            coalesce(dispute_won_at, dispute_lost_at),
            coalesce(dispute_lost_at, dispute_won_at)
        ) as dispute_decided_at,
        fraud_reported_at,
        last_event_at
    from {{ ref('int_transaction_milestones') }}
    {% if is_incremental() -%}
    where transaction_key in (select transaction_key from sales)
    {%- endif %}
),

landings as (
    select
        transaction_key,
        max(loaded_at) as loaded_at
    from {{ ref('int_payment_events_deduped') }}
    where transaction_key is not null{{ and_payment_in('sales') }}
    group by transaction_key
),

-- the shop's clock says on which day a step was reached, as it does for the day of the sale
dated as (
    select
        milestones.transaction_key,
        {%- for role in roles %}
        {{ local_date('milestones.' ~ role ~ '_at', 'time_zones.merchant_time_zone') }} as {{ role }}_date,
        {%- endfor %}
        time_zones.merchant_time_zone
    from milestones
    left join time_zones on milestones.transaction_key = time_zones.transaction_key
),

-- a step that has not been reached is null, and so is every lag that needs it; a lag below zero is a clock's fault and
-- is shown as it is: int_payment_issues and invariant 23 say whose
final as (
    select
        sales.transaction_key,
        sales.customer_key,
        sales.customer_version_key,
        sales.merchant_key,
        sales.merchant_version_key,
        sales.product_key,
        sales.product_version_key,
        sales.payment_method_key,
        sales.device_key,
        sales.location_key,
        sales.country_key,
        sales.currency_key,
        sales.status_key,
        sales.business_date_key,
        sales.captured_date_key,
        {%- for role in roles %}
        {{ role_date_key('dated.' ~ role ~ '_date') | indent(8) }} as {{ role }}_date_key,
        {%- endfor %}
        sales.row_version,
        sales.transaction_id,
        sales.source_system,
        sales.status_code,
        sales.currency_code,
        coalesce(milestones.attempts_count, 0) as attempts_count,
        coalesce(milestones.refunds_count, 0) as refunds_count,
        coalesce(milestones.disputes_count, 0) as disputes_count,
        {%- for name, ends in lags.items() %}
        cast({{ seconds_between('milestones.' ~ ends[0], 'milestones.' ~ ends[1]) }} as bigint) as {{ name }},
        {%- endfor %}
        milestones.last_event_at is not null as has_events,
        sales.is_ever_captured,
        sales.event_at_utc,
        milestones.attempted_at,
        milestones.authenticated_at,
        milestones.authorized_at,
        milestones.declined_at,
        milestones.blocked_at,
        milestones.captured_at,
        milestones.available_at,
        milestones.first_refund_at,
        milestones.inquiry_opened_at,
        milestones.dispute_opened_at,
        milestones.dispute_won_at,
        milestones.dispute_lost_at,
        milestones.dispute_decided_at,
        milestones.fraud_reported_at,
        milestones.last_event_at,
        sales.updated_at,
        {{ latest_of(['sales.loaded_at', 'landings.loaded_at']) | indent(8) }} as loaded_at
    from sales
    left join milestones on sales.transaction_key = milestones.transaction_key
    left join dated on sales.transaction_key = dated.transaction_key
    left join landings on sales.transaction_key = landings.transaction_key
)

select * from final
