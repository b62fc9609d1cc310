-- One row per payment: what was decided about it, what it turned out to be, and what that cost.
with

sales as (
    select
        transaction_key,
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
),

scores as (
    select
        transaction_key,
        fraud_score
    from {{ ref('int_transactions_unified') }}
),

milestones as (
    select
        transaction_key,
        three_ds_outcome,
        three_ds_eci,
        sca_exemption,
        dispute_reason_code,
        fraud_label_source,
        review_result,
        disputed_amount,
        dispute_won_amount,
        has_fraud_dispute,
        blocked_at,
        dispute_opened_at,
        dispute_won_at,
        dispute_lost_at,
        fraud_reported_at
    from {{ ref('int_transaction_milestones') }}
),

dates as (
    select
        date_key,
        date_day
    from {{ ref('dim_date') }}
),

-- a score, a block or the status `fraudulent` is what we thought; a label is what a network, an issuer or a dispute
-- said afterwards. Only the label confirms, and a dispute that was won takes it back
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
        sales.transaction_id,
        sales.source_system,
        sales.currency_code,
        sales.reporting_currency_code,
        sales.reporting_rate,
        sales.is_ever_captured,
        sales.event_at_utc,
        sales.updated_at,
        sales.loaded_at,
        scores.fraud_score,
        coalesce(sales.status_code = 'blocked', false) or milestones.blocked_at is not null as is_blocked,
        coalesce(sales.source_status = 'review', false) as is_in_review,
        milestones.three_ds_outcome,
        milestones.three_ds_eci,
        milestones.sca_exemption,
        milestones.dispute_reason_code,
        milestones.review_result,
        milestones.fraud_reported_at,
        milestones.dispute_opened_at,
        coalesce(milestones.has_fraud_dispute, false) as has_fraud_dispute,
        case
            when milestones.has_fraud_dispute and milestones.dispute_won_at is not null then 'legitimate'
            when milestones.fraud_reported_at is not null or milestones.has_fraud_dispute then 'fraud'
        end as label, -- noqa: RF04
        case
            when milestones.has_fraud_dispute and milestones.dispute_won_at is not null then 'dispute'
            when milestones.fraud_reported_at is not null then coalesce(milestones.fraud_label_source, 'network')
            when milestones.has_fraud_dispute then 'dispute'
        end as label_source,
        case
            when milestones.has_fraud_dispute and milestones.dispute_won_at is not null
                then milestones.dispute_won_at
            when milestones.has_fraud_dispute
                then least(
                    coalesce(milestones.fraud_reported_at, milestones.dispute_opened_at),
                    coalesce(milestones.dispute_opened_at, milestones.fraud_reported_at)
                )
            else milestones.fraud_reported_at
        end as label_known_at,
        case when milestones.has_fraud_dispute then milestones.disputed_amount else 0 end as gross_loss_amount,
        case when milestones.has_fraud_dispute then milestones.dispute_won_amount else 0 end as recovered_amount
    from sales
    left join scores on sales.transaction_key = scores.transaction_key
    left join milestones on sales.transaction_key = milestones.transaction_key
),

converted as (
    select
        *,
        {{ convert_money('gross_loss_amount', 'reporting_rate') }} as gross_loss_amount_reporting,
        {{ convert_money('recovered_amount', 'reporting_rate') }} as recovered_amount_reporting,
        {{ utc_date('fraud_reported_at') }} as reported_date,
        {{ utc_date('dispute_opened_at') }} as disputed_date
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
        converted.business_date_key,
        coalesce(
            reported_dates.date_key,
            case
                when converted.fraud_reported_at is null then {{ var('not_applicable_key') }}
                else {{ var('unknown_key') }}
            end
        ) as fraud_reported_date_key,
        coalesce(
            disputed_dates.date_key,
            case
                when converted.dispute_opened_at is null then {{ var('not_applicable_key') }}
                else {{ var('unknown_key') }}
            end
        ) as dispute_opened_date_key,
        converted.transaction_id,
        converted.source_system,
        converted.currency_code,
        converted.reporting_currency_code,
        case
            when converted.is_blocked then 'block'
            when converted.is_in_review then 'review'
            else 'approve'
        end as decision,
        converted.label,
        converted.label_source,
        converted.three_ds_outcome,
        converted.three_ds_eci,
        converted.sca_exemption,
        converted.dispute_reason_code,
        converted.review_result,
        converted.fraud_score as deciding_score,
        cast(converted.gross_loss_amount as {{ type_money() }}) as gross_loss_amount,
        cast(converted.recovered_amount as {{ type_money() }}) as recovered_amount,
        cast(converted.gross_loss_amount - converted.recovered_amount as {{ type_money() }}) as net_loss_amount,
        converted.gross_loss_amount_reporting,
        converted.recovered_amount_reporting,
        cast(
            converted.gross_loss_amount_reporting - converted.recovered_amount_reporting as {{ type_money() }}
        ) as net_loss_amount_reporting,
        converted.is_blocked as is_detected_fraud,
        coalesce(converted.label = 'fraud', false) as is_confirmed_fraud,
        converted.has_fraud_dispute,
        -- authenticated (05, 02) or attempted (06, 01) with the issuer's 3-D Secure: the issuer bears the fraud. An
        -- exemption that we asked for leaves it with us, whatever indicator came back
        coalesce(
            converted.three_ds_outcome in ('authenticated', 'attempted')
            and converted.three_ds_eci in ('01', '02', '05', '06'),
            false
        ) as has_liability_shift,
        converted.is_ever_captured,
        converted.event_at_utc,
        converted.fraud_reported_at,
        converted.dispute_opened_at,
        converted.label_known_at,
        converted.updated_at,
        converted.loaded_at
    from converted
    left join dates as reported_dates on converted.reported_date = reported_dates.date_day
    left join dates as disputed_dates on converted.disputed_date = disputed_dates.date_day
)

select * from final
