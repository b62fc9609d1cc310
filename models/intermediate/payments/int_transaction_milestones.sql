-- One row per payment: when each step of its life was first reached, and what refunds, disputes and fees came to.
{{ config(
    materialized='incremental',
    incremental_strategy='append',
    pre_hook="{{ remove_stale('int_transactions_unified') }}",
) }}
{%- set carried = {
    'decline_code': 'decline_code',
    'three_ds_outcome': 'three_ds_outcome',
    'three_ds_eci': 'three_ds_eci',
    'three_ds_exemption': 'sca_exemption',
    'dispute_reason_code': 'dispute_reason_code',
    'label_source': 'fraud_label_source',
    'fraud_rule': 'fraud_rule',
    'review_result': 'review_result',
} %}
with

transactions as (
    select
        transaction_key,
        row_version,
        source_system,
        transaction_id,
        currency_code
    from {{ ref('int_transactions_unified') }}
    {{ only_changed() }}
),

events as (
    select
        event_id,
        transaction_key,
        dispute_id,
        -- money that is told twice, under two event ids, moved once
        coalesce(capture_id, refund_id, fee_id, event_id) as movement_id,
        event_type,
        currency_code,
        decline_code,
        three_ds_outcome,
        three_ds_eci,
        three_ds_exemption,
        dispute_reason_code,
        network,
        label_source,
        fraud_rule,
        review_result,
        amount,
        is_fraud,
        available_at,
        occurred_at
    from {{ ref('int_payment_events_deduped') }}
    where transaction_key is not null{{ and_payment_in('transactions') }}
),

-- little is told twice: numbering all events for its sake would cost more than everything else here
retold as (
    select
        transaction_key,
        event_type,
        movement_id
    from events
    where event_type in ('payment.captured', 'refund.succeeded', 'fee.charged')
    group by transaction_key, event_type, movement_id
    having count(*) > 1
),

tellings as (
    select
        events.event_id,
        row_number() over (
            partition by events.transaction_key, events.event_type, events.movement_id
            order by events.occurred_at, events.event_id
        ) as telling
    from events
    inner join retold
        on
            events.transaction_key = retold.transaction_key
            and events.event_type = retold.event_type
            and events.movement_id = retold.movement_id
),

-- an event in another currency than its payment's counts as an event, not as money
priced as (
    select
        events.event_id,
        events.transaction_key,
        events.dispute_id,
        events.event_type,
        events.decline_code,
        events.three_ds_outcome,
        events.three_ds_eci,
        events.three_ds_exemption,
        events.dispute_reason_code,
        events.network,
        events.label_source,
        events.fraud_rule,
        events.review_result,
        case when events.currency_code = transactions.currency_code then abs(events.amount) end as amount,
        coalesce(tellings.telling, 1) as telling,
        events.is_fraud,
        events.available_at,
        events.occurred_at
    from events
    inner join transactions on events.transaction_key = transactions.transaction_key
    left join tellings on events.event_id = tellings.event_id
),

ranked as (
    select
        transaction_key,
        event_type,
        {%- for column in carried %}
        {{ column }},
        {%- endfor %}
        case when telling = 1 then amount end as amount,
        telling,
        is_fraud,
        available_at,
        occurred_at,
        {{ instant_text('occurred_at') }} as recency
    from priced
),

-- what only some events carry is what the latest of those said
milestones as (
    select
        transaction_key,
        {%- for column, name in carried.items() %}
        {{ text_at_latest(column, 'recency') }} as {{ name }},
        {%- endfor %}
        count(*) as events_count,
        sum(case when event_type = 'payment.attempted' then 1 else 0 end) as attempts_count,
        sum(case when event_type = 'refund.succeeded' and telling = 1 then 1 else 0 end) as refunds_count,
        sum(case when event_type = 'dispute.inquiry' then 1 else 0 end) as inquiries_count,
        sum(case when event_type = 'fraud.reported' then 1 else 0 end) as fraud_reports_count,
        {%- for column, event_type in {
            'authorized_amount': 'payment.authorized',
            'captured_amount': 'payment.captured',
            'refunded_amount': 'refund.succeeded',
            'fee_amount': 'fee.charged',
        }.items() %}
        cast(sum(case when event_type = '{{ event_type }}' then amount end) as {{ type_money() }}) as {{ column }},
        {%- endfor %}
        max(case when is_fraud then 1 else 0 end) = 1 as has_fraud_dispute,
        {%- for column, event_type in {
            'attempted_at': 'payment.attempted',
            'authenticated_at': 'payment.authenticated',
            'authorized_at': 'payment.authorized',
            'declined_at': 'payment.declined',
            'blocked_at': 'payment.blocked',
            'captured_at': 'payment.captured',
            'first_refund_at': 'refund.succeeded',
            'inquiry_opened_at': 'dispute.inquiry',
            'dispute_opened_at': 'dispute.opened',
            'dispute_won_at': 'dispute.won',
            'dispute_lost_at': 'dispute.lost',
            'fraud_reported_at': 'fraud.reported',
        }.items() %}
        min(case when event_type = '{{ event_type }}' then occurred_at end) as {{ column }},
        {%- endfor %}
        min(case when event_type = 'payment.captured' then available_at end) as available_at,
        min(occurred_at) as first_event_at,
        max(occurred_at) as last_event_at
    from ranked
    group by transaction_key
),

-- one row per dispute first: each of its events repeats the amount in dispute
disputes as (
    select
        transaction_key,
        coalesce(dispute_id, event_id) as dispute_id,
        max(case when event_type = 'dispute.opened' then amount end) as opened_amount,
        max(case when event_type = 'dispute.won' then amount end) as won_amount,
        max(case when event_type = 'dispute.lost' then amount end) as lost_amount,
        max(case when event_type = 'dispute.won' then 1 else 0 end) as is_won,
        max(case when event_type = 'dispute.lost' then 1 else 0 end) as is_lost
    from priced
    where event_type in ('dispute.opened', 'dispute.won', 'dispute.lost')
    group by transaction_key, coalesce(dispute_id, event_id)
),

-- an outcome without an amount of its own is about what was disputed
dispute_amounts as (
    select
        transaction_key,
        count(*) as disputes_count,
        cast(sum(coalesce(opened_amount, won_amount, lost_amount)) as {{ type_money() }}) as disputed_amount,
        cast(sum(case when is_won = 1 then coalesce(won_amount, opened_amount) end) as {{ type_money() }})
            as dispute_won_amount,
        cast(sum(case when is_lost = 1 then coalesce(lost_amount, opened_amount) end) as {{ type_money() }})
            as dispute_lost_amount
    from disputes
    group by transaction_key
),

final as (
    select
        transactions.transaction_key,
        transactions.row_version,
        transactions.source_system,
        transactions.transaction_id,
        transactions.currency_code,
        milestones.decline_code,
        milestones.three_ds_outcome,
        milestones.three_ds_eci,
        milestones.sca_exemption,
        milestones.dispute_reason_code,
        milestones.fraud_label_source,
        milestones.fraud_rule,
        milestones.review_result,
        {%- for column in ['events', 'attempts', 'refunds', 'inquiries', 'fraud_reports'] %}
        coalesce(cast(milestones.{{ column }}_count as integer), 0) as {{ column }}_count,
        {%- endfor %}
        coalesce(cast(dispute_amounts.disputes_count as integer), 0) as disputes_count,
        milestones.authorized_amount,
        milestones.captured_amount,
        coalesce(milestones.refunded_amount, 0) as refunded_amount,
        coalesce(dispute_amounts.disputed_amount, 0) as disputed_amount,
        coalesce(dispute_amounts.dispute_won_amount, 0) as dispute_won_amount,
        coalesce(dispute_amounts.dispute_lost_amount, 0) as dispute_lost_amount,
        milestones.fee_amount,
        dispute_amounts.transaction_key is not null as is_disputed,
        coalesce(milestones.has_fraud_dispute, false) as has_fraud_dispute,
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
        milestones.fraud_reported_at,
        milestones.first_event_at,
        milestones.last_event_at
    from transactions
    left join milestones on transactions.transaction_key = milestones.transaction_key
    left join dispute_amounts on transactions.transaction_key = dispute_amounts.transaction_key
)

select * from final
