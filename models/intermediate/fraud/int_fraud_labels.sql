-- One row per payment: what it turned out to be, who said so and when, and what fraud cost, each payment counted once.
{{ config(
    materialized='incremental',
    incremental_strategy='append',
    pre_hook="{{ remove_stale('int_transactions_unified') }}",
) }}
with

transactions as (
    select
        transaction_key,
        row_version,
        source_system,
        currency_code,
        amount,
        loaded_at
    from {{ ref('int_transactions_unified') }}
    {{ only_changed() }}
),

events as (
    select
        event_id,
        transaction_key,
        dispute_id,
        event_type,
        currency_code,
        label_source,
        review_result,
        amount,
        is_fraud,
        occurred_at,
        loaded_at
    from {{ ref('int_payment_events_deduped') }}
    where transaction_key is not null{{ and_payment_in('transactions') }}
),

captures as (
    select
        transaction_key,
        captured_amount
    from {{ ref('int_transaction_milestones') }}
    {% if is_incremental() -%}
    where transaction_key in (select transaction_key from transactions)
    {%- endif %}
),

landings as (
    select
        transaction_key,
        max(loaded_at) as loaded_at
    from events
    group by transaction_key
),

-- one row per dispute first: each of its events repeats the amount. An inquiry is a question, it accuses nobody
disputes as (
    select
        events.transaction_key,
        coalesce(events.dispute_id, events.event_id) as dispute_id,
        max(case when events.is_fraud then 1 else 0 end) as is_fraud,
        max(
            case when events.currency_code = transactions.currency_code then abs(events.amount) end
        ) as disputed_amount,
        min(events.occurred_at) as first_event_at,
        min(case when events.event_type = 'dispute.opened' then events.occurred_at end) as opened_at,
        max(case when events.event_type = 'dispute.won' then events.occurred_at end) as won_at,
        max(case when events.event_type = 'dispute.lost' then events.occurred_at end) as lost_at
    from events
    inner join transactions on events.transaction_key = transactions.transaction_key
    where events.event_type in ('dispute.opened', 'dispute.won', 'dispute.lost')
    group by events.transaction_key, coalesce(events.dispute_id, events.event_id)
),

-- of two outcomes of one dispute the later one stands
fraud_disputes as (
    select
        transaction_key,
        dispute_id,
        disputed_amount,
        coalesce(opened_at, first_event_at) as opened_at,
        won_at,
        won_at is not null and (lost_at is null or won_at > lost_at) as is_won
    from disputes
    where is_fraud = 1
),

dispute_totals as (
    select
        transaction_key,
        count(*) as fraud_disputes_count,
        min(opened_at) as first_opened_at,
        -- the payment is cleared when the last of its accusations is
        max(won_at) as last_won_at,
        min(case when is_won then 1 else 0 end) = 1 as is_every_dispute_won,
        sum(disputed_amount) as disputed_amount,
        sum(case when is_won then disputed_amount else 0 end) as won_amount
    from fraud_disputes
    group by transaction_key
),

reports_in_order as (
    select
        transaction_key,
        coalesce(label_source, 'network') as label_source,
        occurred_at,
        count(*) over (partition by transaction_key) as reports_count,
        row_number() over (partition by transaction_key order by occurred_at, event_id) as report_number
    from events
    where event_type = 'fraud.reported'
),

first_reports as (
    select
        transaction_key,
        label_source,
        reports_count,
        occurred_at as reported_at
    from reports_in_order
    where report_number = 1
),

reviews_from_last as (
    select
        transaction_key,
        review_result,
        occurred_at,
        row_number() over (partition by transaction_key order by occurred_at desc, event_id desc) as recency
    from events
    where review_result is not null
),

last_reviews as (
    select
        transaction_key,
        review_result,
        occurred_at as reviewed_at
    from reviews_from_last
    where recency = 1
),

-- 1 the dispute for fraud that was won clears the payment; 2 a report or a dispute for fraud says fraud, by whoever
-- said it first; 3 a reviewer's word counts where nobody outside has spoken. A score, a block, the status `fraudulent`
-- are none of these: they are what we thought, not what it turned out to be
labelled as (
    select
        transactions.transaction_key,
        transactions.row_version,
        transactions.source_system,
        transactions.currency_code,
        case
            when dispute_totals.is_every_dispute_won then 'legitimate'
            when dispute_totals.transaction_key is not null or first_reports.transaction_key is not null then 'fraud'
            when last_reviews.review_result = 'approved' then 'legitimate'
            when last_reviews.review_result = 'fraudulent' then 'fraud'
        end as label, -- noqa: RF04
        case
            when dispute_totals.is_every_dispute_won then 'dispute'
            when
                first_reports.transaction_key is not null
                and (
                    dispute_totals.transaction_key is null
                    or first_reports.reported_at <= dispute_totals.first_opened_at
                )
                then first_reports.label_source
            when dispute_totals.transaction_key is not null then 'dispute'
            when last_reviews.review_result in ('approved', 'fraudulent') then 'review'
        end as label_source,
        case
            when dispute_totals.is_every_dispute_won then dispute_totals.last_won_at
            when dispute_totals.transaction_key is not null or first_reports.transaction_key is not null
                then least(
                    coalesce(first_reports.reported_at, dispute_totals.first_opened_at),
                    coalesce(dispute_totals.first_opened_at, first_reports.reported_at)
                )
            when last_reviews.review_result in ('approved', 'fraudulent') then last_reviews.reviewed_at
        end as label_known_at,
        last_reviews.review_result,
        coalesce(first_reports.reports_count, 0) as fraud_reports_count,
        coalesce(dispute_totals.fraud_disputes_count, 0) as fraud_disputes_count,
        coalesce(dispute_totals.disputed_amount, 0) as disputed_amount,
        coalesce(dispute_totals.won_amount, 0) as won_amount,
        coalesce(captures.captured_amount, transactions.amount) as exposure_amount,
        first_reports.reported_at,
        dispute_totals.first_opened_at as fraud_disputed_at,
        last_reviews.reviewed_at,
        {{ latest_of(['transactions.loaded_at', 'landings.loaded_at']) | indent(8) }} as loaded_at
    from transactions
    left join captures on transactions.transaction_key = captures.transaction_key
    left join landings on transactions.transaction_key = landings.transaction_key
    left join dispute_totals on transactions.transaction_key = dispute_totals.transaction_key
    left join first_reports on transactions.transaction_key = first_reports.transaction_key
    left join last_reviews on transactions.transaction_key = last_reviews.transaction_key
),

-- two disputes over the same money lose it once: no payment costs more than was captured. It is recovered when no
-- other dispute still wants it
capped as (
    select
        *,
        case when disputed_amount > exposure_amount then exposure_amount else disputed_amount end as gross_amount,
        case
            when disputed_amount - won_amount > exposure_amount then exposure_amount
            else disputed_amount - won_amount
        end as net_amount
    from labelled
),

final as (
    select
        transaction_key,
        row_version,
        source_system,
        currency_code,
        label, -- noqa: RF04
        label_source,
        review_result,
        cast(gross_amount as {{ type_money() }}) as gross_loss_amount,
        cast(gross_amount - net_amount as {{ type_money() }}) as recovered_amount,
        cast(fraud_reports_count as integer) as fraud_reports_count,
        cast(fraud_disputes_count as integer) as fraud_disputes_count,
        fraud_disputes_count > 0 as has_fraud_dispute,
        coalesce(label = 'fraud' and label_source != 'review', false) as is_confirmed_fraud,
        reported_at as fraud_reported_at,
        fraud_disputed_at,
        reviewed_at,
        label_known_at,
        loaded_at
    from capped
)

select * from final
