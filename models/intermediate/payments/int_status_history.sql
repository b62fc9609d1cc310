-- One row per payment and change of status, in the order in which the changes happened.
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
        status_code,
        amount,
        updated_at
    from {{ ref('int_transactions_unified') }}
    {{ only_changed() }}
),

events as (
    select
        event_id,
        transaction_key,
        event_type,
        currency_code,
        amount,
        occurred_at,
        kafka_partition,
        kafka_offset
    from {{ ref('int_payment_events_deduped') }}
    where event_type in (
        'payment.attempted',
        'payment.authorized',
        'payment.declined',
        'payment.blocked',
        'payment.captured',
        'refund.succeeded',
        'dispute.opened',
        'dispute.won',
        'dispute.lost'
    ){{ and_payment_in('transactions') }}
),

steps as (
    select
        events.transaction_key,
        events.event_id,
        events.event_type,
        events.occurred_at,
        case events.event_type
            when 'payment.attempted' then 1
            when 'payment.declined' then 2
            when 'payment.blocked' then 3
            when 'payment.authorized' then 4
            when 'payment.captured' then 5
            when 'refund.succeeded' then 6
            when 'dispute.opened' then 7
            when 'dispute.won' then 8
            else 9
        end as step,
        transactions.amount as payment_amount,
        case
            when
                events.event_type = 'refund.succeeded'
                and events.currency_code = transactions.currency_code
                then abs(events.amount)
            else 0
        end as refund_amount
    from events
    inner join transactions on events.transaction_key = transactions.transaction_key
),

-- by when it happened, not by when it arrived; of events at the same instant the earlier step of a payment goes first.
-- All windows are over one order: the engine sorts once
{% set in_order = 'partition by transaction_key order by occurred_at, step, event_id' -%}
ordered as (
    select
        transaction_key,
        event_type,
        occurred_at,
        payment_amount,
        row_number() over ({{ in_order }}) as event_order,
        lead(event_id) over ({{ in_order }}) is null as is_last,
        sum(refund_amount) over (
            {{ in_order }}
            rows between unbounded preceding and current row
        ) as refunded_amount
    from steps
),

-- what the money says is what a refund, or a dispute that was won, leaves behind
event_statuses as (
    select
        transaction_key,
        case
            when event_type = 'payment.attempted' then 'requires_action'
            when event_type = 'payment.authorized' then 'authorized'
            when event_type = 'payment.declined' then 'failed'
            when event_type = 'payment.blocked' then 'blocked'
            when event_type = 'payment.captured' then 'captured'
            when event_type = 'dispute.opened' then 'disputed'
            when event_type = 'dispute.lost' then 'charged_back'
            when event_type = 'dispute.won' and refunded_amount = 0 then 'captured'
            when refunded_amount >= payment_amount then 'refunded'
            else 'partially_refunded'
        end as status_code,
        'event' as change_source,
        occurred_at as changed_at,
        event_order as change_order,
        is_last
    from ordered
),

last_events as (
    select
        transaction_key,
        status_code as last_status_code,
        changed_at as last_changed_at,
        change_order as last_change_order
    from event_statuses
    where is_last
),

-- the row has the last word, even when its clock is behind the stream's; but a document knows no status after
-- `approved`, so once a payment is captured its document has nothing more to say
row_statuses as (
    select
        transactions.transaction_key,
        transactions.status_code,
        'row' as change_source,
        case
            when last_events.last_changed_at > transactions.updated_at then last_events.last_changed_at
            else transactions.updated_at
        end as changed_at,
        coalesce(last_events.last_change_order, 0) + 1 as change_order
    from transactions
    left join last_events on transactions.transaction_key = last_events.transaction_key
    where
        transactions.status_code is not null
        and not (
            transactions.source_system = 'mongodb'
            and transactions.status_code = 'captured'
            and coalesce(last_events.last_status_code, '')
            in ('refunded', 'partially_refunded', 'disputed', 'charged_back')
        )
),

all_statuses as (
    select
        transaction_key,
        status_code,
        change_source,
        changed_at,
        change_order
    from event_statuses

    union all

    select
        transaction_key,
        status_code,
        change_source,
        changed_at,
        change_order
    from row_statuses
),

compared as (
    select
        transaction_key,
        status_code,
        change_source,
        changed_at,
        change_order,
        lag(status_code) over (partition by transaction_key order by change_order) as previous_status_code
    from all_statuses
),

-- a status said again is no change
changes as (
    select
        transaction_key,
        previous_status_code as from_status,
        status_code as to_status,
        change_source,
        changed_at,
        row_number() over (partition by transaction_key order by change_order) as change_number
    from compared
    where
        previous_status_code is null
        or previous_status_code != status_code
),

final as (
    select
        changes.transaction_key,
        transactions.row_version,
        changes.change_number,
        changes.from_status,
        changes.to_status,
        changes.change_source,
        case
            when changes.from_status is null then true
            {%- for status, next_statuses in legal_status_transitions().items() if next_statuses %}
            when changes.from_status = '{{ status }}' then changes.to_status in ({{ quoted(next_statuses) }})
            {%- endfor %}
            else false
        end as is_legal_transition,
        changes.changed_at
    from changes
    inner join transactions on changes.transaction_key = transactions.transaction_key
)

select * from final
