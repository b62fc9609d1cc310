-- One row per charge month and number of months since: the disputes that its charges have drawn by then.
with

charges as (
    select
        transaction_key,
        case when captured_date_key > 0 then captured_date_key else business_date_key end as charge_date_key
    from {{ ref('fct_sales') }}
    where is_ever_captured
),

events as (
    select
        event_id,
        transaction_key,
        dispute_id,
        event_type,
        is_fraud,
        occurred_at
    from {{ ref('int_payment_events_deduped') }}
    where
        transaction_key is not null
        and event_type in ('dispute.opened', 'dispute.won', 'dispute.lost')
),

landings as (
    select max(loaded_at) as loaded_at
    from {{ ref('int_payment_events_deduped') }}
),

calendar as (
    select
        date_key,
        date_day,
        first_of_month
    from {{ ref('dim_date') }}
    where date_day is not null
),

-- inquiries are no disputes. An outcome whose opening never came still tells of a dispute
disputes as (
    select
        transaction_key,
        coalesce(dispute_id, event_id) as dispute_id,
        max(case when is_fraud then 1 else 0 end) as is_fraud,
        {{ utc_date('min(occurred_at)') }} as dispute_date
    from events
    group by transaction_key, coalesce(dispute_id, event_id)
),

dated_charges as (
    select
        charges.transaction_key,
        calendar.date_day as charge_date,
        calendar.first_of_month as charge_month
    from charges
    inner join calendar on charges.charge_date_key = calendar.date_key
),

-- in the zone of the shop a charge may stand a day after the dispute's UTC day: never before month 0
aged as (
    select
        dated_charges.charge_month,
        disputes.is_fraud,
        case
            when calendar.first_of_month < dated_charges.charge_month then dated_charges.charge_month
            else calendar.first_of_month
        end as dispute_month
    from disputes
    inner join dated_charges on disputes.transaction_key = dated_charges.transaction_key
    inner join calendar on disputes.dispute_date = calendar.date_day
),

charge_counts as (
    select
        charge_month,
        count(*) as charges
    from dated_charges
    group by charge_month
),

dispute_counts as (
    select
        charge_month,
        dispute_month,
        count(*) as disputes,
        sum(is_fraud) as fraud_disputes
    from aged
    group by charge_month, dispute_month
),

-- the vintage is told up to the last month that has anything to tell; a clock that runs ahead does not lengthen it
span as (
    select least(max(months.last_month), max(months.landing_month)) as last_month
    from (
        select
            charge_month as last_month,
            cast(null as date) as landing_month
        from charge_counts
        union all
        select
            dispute_month as last_month,
            null as landing_month
        from dispute_counts
        union all
        select
            null as last_month,
            cast({{ dbt.date_trunc('month', utc_date('loaded_at')) }} as date) as landing_month
        from landings
    ) as months
),

months as (
    select distinct first_of_month
    from calendar
),

spine as (
    select
        charge_counts.charge_month,
        months.first_of_month as observed_month,
        charge_counts.charges,
        (
            extract(year from months.first_of_month) - extract(year from charge_counts.charge_month)
        ) * 12
        + extract(month from months.first_of_month)
        - extract(month from charge_counts.charge_month) as months_since,
        months.first_of_month = span.last_month as is_last_month
    from charge_counts
    inner join months on charge_counts.charge_month <= months.first_of_month
    cross join span
    where months.first_of_month <= span.last_month
),

cumulated as (
    select
        spine.charge_month,
        spine.months_since,
        spine.is_last_month,
        spine.charges,
        coalesce(dispute_counts.disputes, 0) as disputes,
        sum(coalesce(dispute_counts.disputes, 0)) over (
            partition by spine.charge_month
            order by spine.observed_month
            rows between unbounded preceding and current row
        ) as cumulative_disputes,
        sum(coalesce(dispute_counts.fraud_disputes, 0)) over (
            partition by spine.charge_month
            order by spine.observed_month
            rows between unbounded preceding and current row
        ) as cumulative_fraud_disputes
    from spine
    left join dispute_counts
        on
            spine.charge_month = dispute_counts.charge_month
            and spine.observed_month = dispute_counts.dispute_month
),

final as (
    select
        charge_month,
        cast(months_since as integer) as months_since,
        cast(charges as bigint) as charges,
        cast(disputes as bigint) as disputes,
        cast(cumulative_disputes as bigint) as cumulative_disputes,
        cast(cumulative_fraud_disputes as bigint) as cumulative_fraud_disputes,
        {{ rate('cumulative_disputes', 'charges') | indent(8) }} as cumulative_dispute_rate,
        -- the last month is still filling up
        not is_last_month as is_complete
    from cumulated
)

select * from final
