-- One row per week: its disputes against its payments, once by the date of the dispute and once by that of the charge.
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
        occurred_at
    from {{ ref('int_payment_events_deduped') }}
    where
        transaction_key is not null
        and event_type in ('dispute.opened', 'dispute.won', 'dispute.lost')
),

calendar as (
    select
        date_key,
        date_day,
        first_of_week
    from {{ ref('dim_date') }}
    where date_day is not null
),

disputes as (
    select
        transaction_key,
        coalesce(dispute_id, event_id) as dispute_id,
        {{ utc_date('min(occurred_at)') }} as dispute_date
    from events
    group by transaction_key, coalesce(dispute_id, event_id)
),

charge_weeks as (
    select
        charges.transaction_key,
        calendar.first_of_week as charge_week
    from charges
    inner join calendar on charges.charge_date_key = calendar.date_key
),

-- three ways into one week: a charge of it, a dispute opened in it, a dispute (whenever opened) over a charge of it
counted as (
    select
        charge_week as first_of_week,
        count(*) as charges,
        0 as disputes_opened,
        0 as disputes_on_charges,
        0 as disputes_opened_on_charges
    from charge_weeks
    group by charge_week

    union all

    select
        calendar.first_of_week,
        0 as charges,
        count(*) as disputes_opened,
        0 as disputes_on_charges,
        sum(case when calendar.first_of_week = charge_weeks.charge_week then 1 else 0 end)
            as disputes_opened_on_charges
    from disputes
    inner join charge_weeks on disputes.transaction_key = charge_weeks.transaction_key
    inner join calendar on disputes.dispute_date = calendar.date_day
    group by calendar.first_of_week

    union all

    select
        charge_weeks.charge_week as first_of_week,
        0 as charges,
        0 as disputes_opened,
        count(*) as disputes_on_charges,
        0 as disputes_opened_on_charges
    from disputes
    inner join charge_weeks on disputes.transaction_key = charge_weeks.transaction_key
    group by charge_weeks.charge_week
),

weeks as (
    select
        first_of_week,
        sum(charges) as charges,
        sum(disputes_opened) as disputes_opened,
        sum(disputes_on_charges) as disputes_on_charges,
        sum(disputes_opened_on_charges) as disputes_opened_on_charges
    from counted
    group by first_of_week
),

final as (
    select
        first_of_week,
        cast(charges as bigint) as charges,
        cast(disputes_opened as bigint) as disputes_opened,
        {{ rate('disputes_opened', 'charges') | indent(8) }} as dispute_activity,
        cast(disputes_on_charges as bigint) as disputes_on_charges,
        {{ rate('disputes_on_charges', 'charges') | indent(8) }} as dispute_rate,
        cast(disputes_opened_on_charges as bigint) as disputes_opened_on_charges
    from weeks
)

select * from final
