-- One row per payment: what was decided about it, what it turned out to be, and what that cost.
{{ config(
    materialized='incremental',
    incremental_strategy='append',
    pre_hook="{{ remove_stale('fct_sales') }}",
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
        device_key,
        payment_method_key,
        country_key,
        currency_key,
        status_key,
        business_date_key,
        transaction_id,
        source_system,
        source_status,
        status_code,
        currency_code,
        reporting_currency_code,
        reporting_rate,
        is_ever_captured,
        event_at_utc,
        updated_at,
        loaded_at
    from {{ ref('fct_sales') }}
    {{ only_changed() }}
),

labels as (
    select
        transaction_key,
        label, -- noqa: RF04
        label_source,
        review_result,
        gross_loss_amount,
        recovered_amount,
        has_fraud_dispute,
        is_confirmed_fraud,
        fraud_reported_at,
        label_known_at,
        loaded_at
    from {{ ref('int_fraud_labels') }}
    {% if is_incremental() -%}
    where transaction_key in (select transaction_key from sales)
    {%- endif %}
),

milestones as (
    select
        transaction_key,
        three_ds_outcome,
        three_ds_eci,
        sca_exemption,
        dispute_reason_code,
        fraud_rule,
        blocked_at,
        dispute_opened_at
    from {{ ref('int_transaction_milestones') }}
    {% if is_incremental() -%}
    where transaction_key in (select transaction_key from sales)
    {%- endif %}
),

assessments as (
    select
        transaction_key,
        assessment_type,
        fraud_rule,
        score,
        rule_weight
    from {{ ref('int_fraud_assessments') }}
    where assessment_type in ('score', 'signal'){{ and_payment_in('sales') }}
),

rules as (
    select
        fraud_rule_key,
        fraud_rule
    from {{ ref('dim_fraud_rule') }}
),

scores as (
    select
        transaction_key,
        score
    from assessments
    where assessment_type = 'score'
),

-- the heaviest signal stands for the score; of two equally heavy ones the first by name
signals_by_weight as (
    select
        transaction_key,
        fraud_rule,
        row_number() over (
            partition by transaction_key
            order by coalesce(rule_weight, 0) desc, fraud_rule
        ) as position_by_weight
    from assessments
    where assessment_type = 'signal'
),

heaviest_signals as (
    select
        transaction_key,
        fraud_rule
    from signals_by_weight
    where position_by_weight = 1
),

-- what was decided at the time stands beside what was learned afterwards; only a label says fraud, see int_fraud_labels
judged as (
    select
        sales.transaction_key,
        sales.customer_key,
        sales.customer_version_key,
        sales.merchant_key,
        sales.merchant_version_key,
        sales.device_key,
        sales.payment_method_key,
        sales.country_key,
        sales.currency_key,
        sales.status_key,
        sales.business_date_key,
        sales.row_version,
        sales.transaction_id,
        sales.source_system,
        sales.currency_code,
        sales.reporting_currency_code,
        sales.reporting_rate,
        sales.is_ever_captured,
        sales.event_at_utc,
        sales.updated_at,
        scores.score as deciding_score,
        coalesce(sales.status_code = 'blocked', false) or milestones.blocked_at is not null as is_blocked,
        coalesce(sales.source_status = 'review', false) as is_in_review,
        coalesce(milestones.fraud_rule, heaviest_signals.fraud_rule) as fraud_rule,
        labels.label,
        labels.label_source,
        milestones.three_ds_outcome,
        milestones.three_ds_eci,
        milestones.sca_exemption,
        milestones.dispute_reason_code,
        labels.review_result,
        coalesce(labels.gross_loss_amount, 0) as gross_loss_amount,
        coalesce(labels.recovered_amount, 0) as recovered_amount,
        coalesce(labels.has_fraud_dispute, false) as has_fraud_dispute,
        coalesce(labels.is_confirmed_fraud, false) as is_confirmed_fraud,
        -- authenticated (05, 02) or attempted (06, 01) with the issuer's 3-D Secure: the issuer bears the fraud. An
        -- exemption that we asked for leaves it with us, whatever indicator came back
        coalesce(
            milestones.three_ds_outcome in ('authenticated', 'attempted')
            and milestones.three_ds_eci in ('01', '02', '05', '06')
            and milestones.sca_exemption is null,
            false
        ) as has_liability_shift,
        milestones.blocked_at,
        labels.fraud_reported_at,
        milestones.dispute_opened_at,
        labels.label_known_at,
        {{ latest_of(['sales.loaded_at', 'labels.loaded_at']) | indent(8) }} as loaded_at
    from sales
    left join labels on sales.transaction_key = labels.transaction_key
    left join milestones on sales.transaction_key = milestones.transaction_key
    left join scores on sales.transaction_key = scores.transaction_key
    left join heaviest_signals on sales.transaction_key = heaviest_signals.transaction_key
),

converted as (
    select
        *,
        {{ convert_money('gross_loss_amount', 'reporting_rate') }} as gross_loss_amount_reporting,
        {{ convert_money('recovered_amount', 'reporting_rate') }} as recovered_amount_reporting,
        {{ utc_date('fraud_reported_at') }} as reported_date,
        {{ utc_date('dispute_opened_at') }} as disputed_date,
        -- a review that blocks and labels in one breath proves nothing about the block: only a later word does
        is_blocked and label is not null and label_known_at > coalesce(blocked_at, event_at_utc) as is_labelled_block
    from judged
),

final as (
    select
        converted.transaction_key,
        converted.customer_key,
        converted.customer_version_key,
        converted.merchant_key,
        converted.merchant_version_key,
        converted.device_key,
        converted.payment_method_key,
        converted.country_key,
        converted.currency_key,
        converted.status_key,
        {{ key_or_default('rules.fraud_rule_key', 'converted.fraud_rule') | indent(8) }} as fraud_rule_key,
        converted.business_date_key,
        {{ role_date_key('converted.reported_date') | indent(8) }} as fraud_reported_date_key,
        {{ role_date_key('converted.disputed_date') | indent(8) }} as dispute_opened_date_key,
        converted.row_version,
        converted.transaction_id,
        converted.source_system,
        converted.currency_code,
        converted.reporting_currency_code,
        case
            when converted.is_blocked then 'block'
            when converted.is_in_review then 'review'
            else 'approve'
        end as decision,
        converted.fraud_rule,
        -- neither database keeps it; the scoring service's own topic will say
        cast(null as {{ type_text() }}) as model_version,
        converted.label,
        converted.label_source,
        converted.three_ds_outcome,
        converted.three_ds_eci,
        converted.sca_exemption,
        case when converted.has_liability_shift then 'issuer' else 'merchant' end as liable_party,
        converted.dispute_reason_code,
        converted.review_result,
        converted.deciding_score,
        converted.gross_loss_amount,
        converted.recovered_amount,
        cast(converted.gross_loss_amount - converted.recovered_amount as {{ type_money() }}) as net_loss_amount,
        converted.gross_loss_amount_reporting,
        converted.recovered_amount_reporting,
        cast(
            converted.gross_loss_amount_reporting - converted.recovered_amount_reporting as {{ type_money() }}
        ) as net_loss_amount_reporting,
        converted.is_blocked as is_detected_fraud,
        converted.is_confirmed_fraud,
        coalesce(converted.is_labelled_block, false) as is_labelled_block,
        coalesce(converted.is_labelled_block and converted.label = 'legitimate', false) as is_false_block,
        converted.has_fraud_dispute,
        converted.has_liability_shift,
        converted.is_ever_captured,
        converted.event_at_utc,
        converted.blocked_at,
        converted.fraud_reported_at,
        converted.dispute_opened_at,
        converted.label_known_at,
        converted.updated_at,
        converted.loaded_at
    from converted
    left join rules on converted.fraud_rule = rules.fraud_rule
)

select * from final
