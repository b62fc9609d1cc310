-- One row per business date, currency and source system: what was asked, authorized, captured, given back and charged.
with

sales as (
    select
        transaction_key,
        customer_key,
        business_date_key,
        currency_key,
        business_date,
        currency_code,
        reporting_currency_code,
        source_system,
        status_code,
        gross_amount,
        gross_amount_reporting,
        fee_amount,
        fee_amount_reporting,
        reporting_rate,
        is_ever_captured,
        has_invalid_amount
    from {{ ref('fct_sales') }}
),

milestones as (
    select
        transaction_key,
        attempts_count,
        refunded_amount,
        dispute_lost_amount,
        authorized_at,
        declined_at,
        blocked_at
    from {{ ref('int_transaction_milestones') }}
),

statuses as (
    select
        status_code,
        is_authorized_stage
    from {{ ref('dim_status') }}
),

fraud as (
    select
        transaction_key,
        is_confirmed_fraud
    from {{ ref('fct_fraud') }}
),

-- a payment that lives in the document store may have no events: then its status says how far it came
payments as (
    select
        sales.business_date_key,
        sales.currency_key,
        sales.business_date,
        coalesce(sales.currency_code, 'unknown') as currency_code,
        sales.reporting_currency_code,
        sales.source_system,
        sales.customer_key,
        sales.gross_amount,
        sales.gross_amount_reporting,
        sales.fee_amount,
        sales.fee_amount_reporting,
        sales.is_ever_captured,
        sales.has_invalid_amount,
        fraud.is_confirmed_fraud,
        greatest(coalesce(milestones.attempts_count, 0), 1) as attempts,
        milestones.authorized_at is not null or coalesce(statuses.is_authorized_stage, false) as is_authorized,
        -- stopped before the issuer was asked: what a review stopped later was authorized first, and counts there
        milestones.authorized_at is null
        and (milestones.blocked_at is not null or coalesce(sales.status_code = 'blocked', false)) as is_blocked,
        -- the customer left before the issuer was asked
        milestones.authorized_at is null
        and milestones.declined_at is null
        and milestones.blocked_at is null
        and coalesce(sales.status_code in ('requires_action', 'canceled'), false) as is_incomplete,
        case when sales.is_ever_captured then coalesce(milestones.refunded_amount, 0) else 0 end as refunded_amount,
        case
            when sales.is_ever_captured then coalesce(milestones.dispute_lost_amount, 0) else 0
        end as dispute_lost_amount,
        sales.reporting_rate
    from sales
    left join milestones on sales.transaction_key = milestones.transaction_key
    left join statuses on sales.status_code = statuses.status_code
    left join fraud on sales.transaction_key = fraud.transaction_key
),

priced as (
    select
        *,
        is_ever_captured and gross_amount is not null and gross_amount_reporting is null as is_unconverted,
        {{ convert_money('refunded_amount', 'reporting_rate') }} as refunded_amount_reporting,
        {{ convert_money('dispute_lost_amount', 'reporting_rate') }} as dispute_lost_amount_reporting
    from payments
),

-- money is summed over captured payments only
totals as (
    select
        business_date_key,
        currency_key,
        business_date,
        currency_code,
        reporting_currency_code,
        source_system,
        count(*) as transactions, -- noqa: RF04
        sum(attempts) as attempts,
        sum(case when is_blocked then 1 else 0 end) as blocked_transactions,
        sum(case when is_incomplete then 1 else 0 end) as incomplete_transactions,
        sum(case when is_authorized then 1 else 0 end) as authorized_transactions,
        sum(case when is_ever_captured then 1 else 0 end) as captured_transactions,
        sum(case when is_ever_captured and refunded_amount > 0 then 1 else 0 end) as refunded_transactions,
        sum(case when is_confirmed_fraud then 1 else 0 end) as confirmed_fraud_transactions,
        sum(case when has_invalid_amount then 1 else 0 end) as invalid_amount_transactions,
        sum(case when is_unconverted then 1 else 0 end) as unconverted_transactions,
        {{ suppress_small_groups('count(distinct customer_key)', 'count(distinct customer_key)') }} as customers,
        sum(case when is_ever_captured then gross_amount end) as captured,
        sum(case when is_ever_captured then gross_amount_reporting end) as captured_reporting,
        sum(case when is_ever_captured then refunded_amount end) as refunded,
        sum(case when is_ever_captured then refunded_amount_reporting end) as refunded_reporting,
        sum(case when is_ever_captured then dispute_lost_amount end) as disputes_lost,
        sum(case when is_ever_captured then dispute_lost_amount_reporting end) as disputes_lost_reporting,
        sum(case when is_ever_captured then fee_amount end) as fees,
        sum(case when is_ever_captured then fee_amount_reporting end) as fees_reporting
    from priced
    group by
        business_date_key,
        currency_key,
        business_date,
        currency_code,
        reporting_currency_code,
        source_system
),

-- where nothing was captured a sum is zero. In reporting currency a sum over payments of which none could be converted
-- stays null: zero would read as a fact
summed as (
    select
        *,
        cast(coalesce(captured, 0) as decimal(38, 4)) as captured_amount,
        cast(coalesce(refunded, 0) as decimal(38, 4)) as refunded_amount,
        cast(coalesce(disputes_lost, 0) as decimal(38, 4)) as dispute_lost_amount,
        cast(coalesce(fees, 0) as decimal(38, 4)) as fee_amount,
        cast(coalesce(captured_reporting, case when unconverted_transactions = 0 then 0 end) as decimal(38, 4))
            as captured_amount_reporting,
        cast(coalesce(refunded_reporting, case when unconverted_transactions = 0 then 0 end) as decimal(38, 4))
            as refunded_amount_reporting,
        cast(coalesce(disputes_lost_reporting, case when unconverted_transactions = 0 then 0 end) as decimal(38, 4))
            as dispute_lost_amount_reporting,
        cast(coalesce(fees_reporting, case when unconverted_transactions = 0 then 0 end) as decimal(38, 4))
            as fee_amount_reporting
    from totals
),

final as (
    select
        {{ hash_key(['business_date_key', 'currency_code', 'source_system']) }} as daily_overview_key,
        business_date_key,
        currency_key,
        currency_code,
        reporting_currency_code,
        source_system,
        cast(transactions as bigint) as transactions, -- noqa: RF04
        cast(attempts as bigint) as attempts,
        cast(blocked_transactions as bigint) as blocked_transactions,
        cast(incomplete_transactions as bigint) as incomplete_transactions,
        cast(authorized_transactions as bigint) as authorized_transactions,
        cast(transactions - blocked_transactions - incomplete_transactions as bigint)
            as authorization_denominator,
        cast(attempts - blocked_transactions - incomplete_transactions as bigint)
            as authorization_denominator_raw,
        cast(captured_transactions as bigint) as captured_transactions,
        cast(refunded_transactions as bigint) as refunded_transactions,
        cast(confirmed_fraud_transactions as bigint) as confirmed_fraud_transactions,
        cast(invalid_amount_transactions as bigint) as invalid_amount_transactions,
        cast(unconverted_transactions as bigint) as unconverted_transactions,
        cast(customers as bigint) as customers,
        captured_amount,
        refunded_amount,
        dispute_lost_amount,
        fee_amount,
        cast(captured_amount - refunded_amount - dispute_lost_amount as decimal(38, 4)) as net_volume,
        captured_amount_reporting,
        refunded_amount_reporting,
        dispute_lost_amount_reporting,
        fee_amount_reporting,
        cast(
            captured_amount_reporting - refunded_amount_reporting - dispute_lost_amount_reporting as decimal(38, 4)
        ) as net_volume_reporting,
        business_date
    from summed
)

select * from final
