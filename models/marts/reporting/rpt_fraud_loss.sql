-- One row per month, source system and merchant category: what fraud cost, against what was captured.
with

sales as (
    select
        transaction_key,
        merchant_version_key,
        business_date_key,
        source_system,
        reporting_currency_code,
        gross_amount,
        gross_amount_reporting,
        is_ever_captured
    from {{ ref('fct_sales') }}
),

fraud as (
    select
        transaction_key,
        decision,
        label, -- noqa: RF04
        gross_loss_amount_reporting,
        recovered_amount_reporting,
        net_loss_amount_reporting,
        is_confirmed_fraud,
        is_labelled_block,
        is_false_block,
        has_liability_shift
    from {{ ref('fct_fraud') }}
),

merchants as (
    select
        merchant_version_key,
        merchant_category_group
    from {{ ref('dim_merchant_history') }}
),

calendar as (
    select
        date_key,
        first_of_month
    from {{ ref('dim_date') }}
),

-- by the month of the payment, whenever the loss came: numerator and denominator tell of the same payments. A loss
-- whose payment has no rate is missing in reporting currency, and so is that payment's volume
described as (
    select
        calendar.first_of_month as business_month,
        sales.source_system,
        coalesce(merchants.merchant_category_group, 'Unknown') as merchant_category_group,
        sales.reporting_currency_code,
        sales.is_ever_captured,
        sales.is_ever_captured and sales.gross_amount is not null and sales.gross_amount_reporting is null
            as is_unconverted,
        case when sales.is_ever_captured then sales.gross_amount_reporting end as captured_amount,
        fraud.decision,
        fraud.gross_loss_amount_reporting,
        fraud.recovered_amount_reporting,
        fraud.net_loss_amount_reporting,
        case when fraud.has_liability_shift then fraud.net_loss_amount_reporting end as shifted_loss_amount,
        coalesce(fraud.is_confirmed_fraud, false) as is_confirmed_fraud,
        coalesce(fraud.is_labelled_block, false) as is_labelled_block,
        coalesce(fraud.is_false_block, false) as is_false_block
    from sales
    inner join calendar on sales.business_date_key = calendar.date_key
    left join fraud on sales.transaction_key = fraud.transaction_key
    left join merchants on sales.merchant_version_key = merchants.merchant_version_key
    where calendar.first_of_month is not null
),

summed as (
    select
        business_month,
        source_system,
        merchant_category_group,
        reporting_currency_code,
        count(*) as payments,
        sum(case when is_ever_captured then 1 else 0 end) as captured_payments,
        sum(case when is_unconverted then 1 else 0 end) as unconverted_payments,
        sum(case when is_confirmed_fraud then 1 else 0 end) as confirmed_fraud_payments,
        sum(case when decision = 'block' then 1 else 0 end) as blocked_payments,
        sum(case when is_labelled_block then 1 else 0 end) as labelled_blocked_payments,
        sum(case when is_false_block then 1 else 0 end) as false_blocked_payments,
        cast(coalesce(sum(captured_amount), 0) as decimal(38, 4)) as captured_amount_reporting,
        cast(coalesce(sum(gross_loss_amount_reporting), 0) as decimal(38, 4)) as gross_loss_amount_reporting,
        cast(coalesce(sum(recovered_amount_reporting), 0) as decimal(38, 4)) as recovered_amount_reporting,
        cast(coalesce(sum(net_loss_amount_reporting), 0) as decimal(38, 4)) as net_loss_amount_reporting,
        cast(coalesce(sum(shifted_loss_amount), 0) as decimal(38, 4)) as shifted_loss_amount_reporting
    from described
    group by
        business_month,
        source_system,
        merchant_category_group,
        reporting_currency_code
),

final as (
    select
        business_month,
        source_system,
        merchant_category_group,
        reporting_currency_code,
        cast(payments as bigint) as payments,
        cast(captured_payments as bigint) as captured_payments,
        cast(unconverted_payments as bigint) as unconverted_payments,
        cast(confirmed_fraud_payments as bigint) as confirmed_fraud_payments,
        cast(blocked_payments as bigint) as blocked_payments,
        cast(labelled_blocked_payments as bigint) as labelled_blocked_payments,
        cast(false_blocked_payments as bigint) as false_blocked_payments,
        {{ rate('false_blocked_payments', 'labelled_blocked_payments') | indent(8) }} as false_block_share,
        captured_amount_reporting,
        gross_loss_amount_reporting,
        recovered_amount_reporting,
        net_loss_amount_reporting,
        shifted_loss_amount_reporting,
        {{ basis_points('gross_loss_amount_reporting', 'captured_amount_reporting') | indent(8) }} as gross_loss_bps,
        {{ basis_points('recovered_amount_reporting', 'captured_amount_reporting') | indent(8) }} as recovered_bps,
        {{ basis_points('net_loss_amount_reporting', 'captured_amount_reporting') | indent(8) }} as net_loss_bps
    from summed
)

select * from final
