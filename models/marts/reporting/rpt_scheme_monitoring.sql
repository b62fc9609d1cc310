-- One row per merchant, card scheme and month: what the schemes' monitoring programs count, and where that stands.
{%- set programs = {'vamp': 'VAMP', 'ecm': 'ECM', 'efm': 'EFM'} %}
with

sales as (
    select
        transaction_key,
        merchant_key,
        payment_method_key,
        currency_code,
        reporting_rate,
        gross_amount_reporting,
        is_ever_captured,
        case when captured_date_key > 0 then captured_date_key else business_date_key end as charge_date_key
    from {{ ref('fct_sales') }}
),

authentications as (
    select transaction_key
    from {{ ref('fct_fraud') }}
    where three_ds_outcome in ('authenticated', 'attempted')
),

payment_methods as (
    select
        payment_method_key,
        method_type,
        card_brand
    from {{ ref('dim_payment_method') }}
),

merchants as (
    select
        merchant_key,
        country_code
    from {{ ref('dim_merchant') }}
),

merchant_zones as (
    select
        merchant_key,
        {{ known_time_zone('time_zone') }} as time_zone,
        valid_from,
        valid_to
    from {{ ref('dim_merchant_history') }}
),

calendar as (
    select
        date_key,
        date_day,
        first_of_month
    from {{ ref('dim_date') }}
    where date_day is not null
),

events as (
    select
        event_id,
        transaction_key,
        dispute_id,
        report_id,
        event_type,
        currency_code,
        amount,
        is_fraud,
        occurred_at
    from {{ ref('int_payment_events_deduped') }}
    where
        transaction_key is not null
        and event_type in ('dispute.opened', 'dispute.won', 'dispute.lost', 'fraud.reported')
),

dollar_rates as (
    select
        rate_date,
        rate_to_reporting
    from {{ ref('int_exchange_rates_filled') }}
    where
        currency_code = 'USD'
        and rate_to_reporting is not null
),

thresholds as (
    select
        program,
        scheme,
        region,
        tier,
        severity,
        formula_version,
        numerator,
        denominator,
        ratio_from_bps,
        count_from,
        sales_from,
        amount_above_usd,
        three_ds_share_below_bps,
        valid_from,
        coalesce(valid_to, cast('9999-12-31' as date)) as valid_to
    from {{ ref('scheme_thresholds') }}
    where program in ({{ quoted(programs.values()) }})
),

regions as (
    select
        scheme,
        country_code,
        region
    from {{ ref('scheme_regions') }}
),

-- the scheme is that of the card, for sales and for disputes alike, so that the ratio compares what belongs together.
-- Documents name no card: their payments stand under `unknown`, in nobody's program. Bank transfers have no scheme
card_payments as (
    select
        sales.transaction_key,
        sales.merchant_key,
        coalesce(payment_methods.card_brand, 'unknown') as card_scheme,
        sales.currency_code,
        sales.reporting_rate,
        sales.gross_amount_reporting,
        sales.is_ever_captured,
        sales.charge_date_key
    from sales
    left join payment_methods on sales.payment_method_key = payment_methods.payment_method_key
    where
        payment_methods.card_brand is not null
        or coalesce(payment_methods.method_type, 'unknown') != 'bank_transfer'
),

-- one row per dispute and one per report: a step told again is not another one. Inquiries count nowhere
cases as (
    select
        transaction_key,
        case when event_type = 'fraud.reported' then 'report' else 'dispute' end as case_type,
        coalesce(case when event_type = 'fraud.reported' then report_id else dispute_id end, event_id) as case_id,
        max(case when is_fraud then 1 else 0 end) as is_fraud,
        max(currency_code) as currency_code,
        max(abs(amount)) as amount,
        min(occurred_at) as case_at
    from events
    group by
        transaction_key,
        case when event_type = 'fraud.reported' then 'report' else 'dispute' end,
        coalesce(case when event_type = 'fraud.reported' then report_id else dispute_id end, event_id)
),

-- a case belongs to the shop's day, as the sales do that it is divided by
converted_cases as (
    select
        card_payments.merchant_key,
        card_payments.card_scheme,
        cases.case_type,
        cases.is_fraud,
        {{ local_date('cases.case_at', 'merchant_zones.time_zone') }} as case_date,
        case
            when cases.currency_code = card_payments.currency_code
                then {{ convert_money('cases.amount', 'card_payments.reporting_rate') }}
        end as amount_reporting
    from cases
    inner join card_payments on cases.transaction_key = card_payments.transaction_key
    left join merchant_zones
        on
            card_payments.merchant_key = merchant_zones.merchant_key
            and cases.case_at >= merchant_zones.valid_from
            and cases.case_at < merchant_zones.valid_to
),

-- every payment here is made at a distance: sales are captures, none of them with the card present
monthly_sales as (
    select
        card_payments.merchant_key,
        card_payments.card_scheme,
        calendar.first_of_month as business_month,
        count(*) as sales,
        sum(card_payments.gross_amount_reporting) as sales_amount,
        count(authentications.transaction_key) as three_ds_sales
    from card_payments
    inner join calendar on card_payments.charge_date_key = calendar.date_key
    left join authentications on card_payments.transaction_key = authentications.transaction_key
    where card_payments.is_ever_captured
    group by
        card_payments.merchant_key,
        card_payments.card_scheme,
        calendar.first_of_month
),

monthly_cases as (
    select
        converted_cases.merchant_key,
        converted_cases.card_scheme,
        calendar.first_of_month as business_month,
        sum(case when converted_cases.case_type = 'report' then 1 else 0 end) as fraud_reports,
        sum(case when converted_cases.case_type = 'dispute' then 1 else 0 end) as disputes,
        sum(case when converted_cases.case_type = 'dispute' then converted_cases.is_fraud else 0 end) as fraud_disputes,
        sum(converted_cases.amount_reporting) as case_amount,
        sum(
            case
                when converted_cases.case_type = 'dispute' and converted_cases.is_fraud = 1
                    then converted_cases.amount_reporting
            end
        ) as fraud_dispute_amount
    from converted_cases
    inner join calendar on converted_cases.case_date = calendar.date_day
    group by
        converted_cases.merchant_key,
        converted_cases.card_scheme,
        calendar.first_of_month
),

-- a month counts for a merchant when it sold in it or was disputed in it
merchant_months as (
    select
        merchant_key,
        card_scheme,
        business_month
    from monthly_sales
    union
    select
        merchant_key,
        card_scheme,
        business_month
    from monthly_cases
),

measured as (
    select
        merchant_months.merchant_key,
        merchant_months.card_scheme,
        merchant_months.business_month,
        coalesce(this_month.sales, 0) as sales,
        coalesce(prior_month.sales, 0) as prior_month_sales,
        coalesce(this_month.three_ds_sales, 0) as three_ds_sales,
        coalesce(monthly_cases.fraud_reports, 0) as fraud_reports,
        coalesce(monthly_cases.disputes, 0) as disputes,
        coalesce(monthly_cases.fraud_disputes, 0) as fraud_disputes,
        cast(coalesce(this_month.sales_amount, 0) as decimal(38, 4)) as sales_amount,
        cast(coalesce(monthly_cases.case_amount, 0) as decimal(38, 4)) as case_amount,
        cast(coalesce(monthly_cases.fraud_dispute_amount, 0) as decimal(38, 4)) as fraud_dispute_amount,
        coalesce(regions.region, 'DEFAULT') as region
    from merchant_months
    left join monthly_sales as this_month
        on
            merchant_months.merchant_key = this_month.merchant_key
            and merchant_months.card_scheme = this_month.card_scheme
            and merchant_months.business_month = this_month.business_month
    left join monthly_sales as prior_month
        on
            merchant_months.merchant_key = prior_month.merchant_key
            and merchant_months.card_scheme = prior_month.card_scheme
            and merchant_months.business_month
            = cast({{ dbt.dateadd('month', 1, 'prior_month.business_month') }} as date)
    left join monthly_cases
        on
            merchant_months.merchant_key = monthly_cases.merchant_key
            and merchant_months.card_scheme = monthly_cases.card_scheme
            and merchant_months.business_month = monthly_cases.business_month
    left join merchants on merchant_months.merchant_key = merchants.merchant_key
    left join regions
        on
            merchant_months.card_scheme = regions.scheme
            and merchants.country_code = regions.country_code
),

-- thresholds in dollars are judged at the last rate known in the month
last_dollar_dates as (
    select
        calendar.first_of_month as business_month,
        max(dollar_rates.rate_date) as rate_date
    from dollar_rates
    inner join calendar on dollar_rates.rate_date = calendar.date_day
    group by calendar.first_of_month
),

monthly_dollar_rates as (
    select
        last_dollar_dates.business_month,
        dollar_rates.rate_to_reporting
    from last_dollar_dates
    inner join dollar_rates on last_dollar_dates.rate_date = dollar_rates.rate_date
),

applied as (
    select
        measured.merchant_key,
        measured.card_scheme,
        measured.business_month,
        thresholds.program,
        thresholds.severity,
        thresholds.tier,
        thresholds.formula_version,
        thresholds.ratio_from_bps,
        thresholds.count_from,
        thresholds.sales_from,
        thresholds.three_ds_share_below_bps,
        measured.prior_month_sales,
        measured.sales,
        measured.three_ds_sales,
        case thresholds.numerator
            when 'fraud_reports_and_disputes' then measured.fraud_reports + measured.disputes
            when 'disputes' then measured.disputes
            when 'fraud_disputes' then measured.fraud_disputes
        end as numerator,
        case thresholds.denominator
            when 'sales' then measured.sales
            when 'prior_month_sales' then measured.prior_month_sales
        end as denominator,
        case thresholds.numerator
            when 'fraud_reports_and_disputes' then measured.case_amount
            when 'fraud_disputes' then measured.fraud_dispute_amount
        end as numerator_amount,
        thresholds.amount_above_usd,
        {{ convert_money('thresholds.amount_above_usd', 'monthly_dollar_rates.rate_to_reporting') }}
            as amount_above_reporting
    from measured
    inner join thresholds
        on
            measured.card_scheme = thresholds.scheme
            and measured.region = thresholds.region
            and measured.business_month between thresholds.valid_from and thresholds.valid_to
    left join monthly_dollar_rates on measured.business_month = monthly_dollar_rates.business_month
),

-- whole numbers throughout: 185 of 7,500 reach 150 bps because 185 × 10,000 ≥ 150 × 7,500, no rounded rate is asked.
-- A merchant that sold nothing and is disputed all the same has reached every ratio. Null: no dollar rate to judge by
judged as (
    select
        *,
        numerator > 0
        and numerator * 10000 >= ratio_from_bps * denominator
        and numerator >= coalesce(count_from, 0)
        and prior_month_sales >= coalesce(sales_from, 0)
        and (three_ds_share_below_bps is null or three_ds_sales * 10000 < three_ds_share_below_bps * sales)
        and (amount_above_usd is null or numerator_amount > amount_above_reporting) as is_reached
    from applied
),

-- of the tiers reached, the worst; the ratio to stay below is the lowest tier's
statuses as (
    select
        merchant_key,
        card_scheme,
        business_month,
        program,
        max(numerator) as numerator,
        max(denominator) as denominator,
        min(ratio_from_bps) as threshold_bps,
        max(formula_version) as formula_version,
        max(case when is_reached then severity end) as reached_severity,
        max(case when is_reached is null then 1 else 0 end) = 1 as is_unknown
    from judged
    group by
        merchant_key,
        card_scheme,
        business_month,
        program
),

named as (
    select
        statuses.merchant_key,
        statuses.card_scheme,
        statuses.business_month,
        statuses.program,
        statuses.numerator,
        statuses.denominator,
        statuses.threshold_bps,
        statuses.formula_version,
        case
            when judged.tier is not null then judged.tier
            when statuses.is_unknown then 'unknown'
            else 'within'
        end as program_status
    from statuses
    left join judged
        on
            statuses.merchant_key = judged.merchant_key
            and statuses.card_scheme = judged.card_scheme
            and statuses.business_month = judged.business_month
            and statuses.program = judged.program
            and statuses.reached_severity = judged.severity
),

pivoted as (
    select
        merchant_key,
        card_scheme,
        business_month,
        {%- for column, program in programs.items() %}
        max(case when program = '{{ program }}' then program_status end) as {{ column }}_status,
        max(case when program = '{{ program }}' then threshold_bps end) as {{ column }}_threshold_bps,
        max(case when program = '{{ program }}' then formula_version end) as {{ column }}_formula_version,
        {%- endfor %}
        count(*) as programs
    from named
    group by
        merchant_key,
        card_scheme,
        business_month
),

-- the ratios are told for every scheme and month, the status only where a program of the scheme was in force
final as (
    select
        measured.merchant_key,
        measured.card_scheme,
        measured.business_month,
        measured.region,
        '{{ var("reporting_currency") }}' as reporting_currency_code,
        cast(measured.sales as bigint) as sales,
        cast(measured.prior_month_sales as bigint) as prior_month_sales,
        cast(measured.three_ds_sales as bigint) as three_ds_sales,
        cast(measured.fraud_reports as bigint) as fraud_reports,
        cast(measured.disputes as bigint) as disputes,
        cast(measured.fraud_disputes as bigint) as fraud_disputes,
        measured.sales_amount as sales_amount_reporting,
        measured.case_amount as case_amount_reporting,
        measured.fraud_dispute_amount as fraud_dispute_amount_reporting,
        cast(measured.fraud_reports + measured.disputes as bigint) as vamp_numerator,
        cast(measured.sales as bigint) as vamp_denominator,
        {{ basis_points('measured.fraud_reports + measured.disputes', 'measured.sales') | indent(8) }}
            as vamp_ratio_bps,
        cast(pivoted.vamp_threshold_bps as integer) as vamp_threshold_bps,
        pivoted.vamp_formula_version,
        coalesce(pivoted.vamp_status, 'not_in_force') as vamp_status,
        cast(measured.disputes as bigint) as ecm_numerator,
        cast(measured.prior_month_sales as bigint) as ecm_denominator,
        {{ basis_points('measured.disputes', 'measured.prior_month_sales') | indent(8) }} as ecm_ratio_bps,
        cast({{ basis_points('measured.disputes', 'measured.prior_month_sales', 0) | indent(8) }} as integer)
            as ecm_ratio_whole_bps,
        cast(pivoted.ecm_threshold_bps as integer) as ecm_threshold_bps,
        pivoted.ecm_formula_version,
        coalesce(pivoted.ecm_status, 'not_in_force') as ecm_status,
        cast(measured.fraud_disputes as bigint) as efm_numerator,
        cast(measured.prior_month_sales as bigint) as efm_denominator,
        {{ basis_points('measured.fraud_disputes', 'measured.prior_month_sales') | indent(8) }} as efm_ratio_bps,
        cast(pivoted.efm_threshold_bps as integer) as efm_threshold_bps,
        pivoted.efm_formula_version,
        coalesce(pivoted.efm_status, 'not_in_force') as efm_status
    from measured
    left join pivoted
        on
            measured.merchant_key = pivoted.merchant_key
            and measured.card_scheme = pivoted.card_scheme
            and measured.business_month = pivoted.business_month
)

select * from final
