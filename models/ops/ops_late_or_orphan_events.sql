-- One row per source system and event type: how many messages were repeated, late, unknown or about no known payment.
with

messages as (
    select
        event_id,
        event_type,
        source_system,
        transaction_id,
        is_known_event_type,
        has_invalid_amount,
        occurred_at,
        produced_at
    from {{ ref('stg_stream__payments_transactions') }}
),

events as (
    select
        transaction_key,
        event_type,
        source_system,
        kafka_partition,
        kafka_offset,
        occurred_at
    from {{ ref('int_payment_events_deduped') }}
),

transactions as (
    select transaction_key
    from {{ ref('int_transactions_unified') }}
),

message_counts as (
    select
        coalesce(source_system, 'unknown') as source_system,
        coalesce(event_type, 'unknown') as event_type,
        count(*) as messages_count,
        sum(case when is_known_event_type then 0 else 1 end) as unknown_type_count,
        sum(case when has_invalid_amount then 1 else 0 end) as invalid_amount_count,
        sum(
            case
                when {{ seconds_between('occurred_at', 'produced_at') }} > {{ var('late_event_hours') }} * 3600 then 1
                else 0
            end
        ) as late_count
    from messages
    group by coalesce(source_system, 'unknown'), coalesce(event_type, 'unknown')
),

-- in the order of arrival, does an event of the same payment say that it happened before the one in front of it?
sequenced as (
    select
        transaction_key,
        event_type,
        source_system,
        occurred_at,
        lag(occurred_at) over (
            partition by transaction_key
            order by kafka_partition, kafka_offset
        ) as previous_occurred_at
    from events
),

event_counts as (
    select
        coalesce(sequenced.source_system, 'unknown') as source_system,
        sequenced.event_type,
        count(*) as events_count,
        sum(
            case
                when sequenced.transaction_key is not null and transactions.transaction_key is null then 1
                else 0
            end
        ) as orphan_count,
        sum(
            case
                when
                    sequenced.transaction_key is not null
                    and sequenced.occurred_at < sequenced.previous_occurred_at
                    then 1
                else 0
            end
        ) as out_of_order_count
    from sequenced
    left join transactions on sequenced.transaction_key = transactions.transaction_key
    group by coalesce(sequenced.source_system, 'unknown'), sequenced.event_type
),

final as (
    select
        message_counts.source_system,
        message_counts.event_type,
        message_counts.messages_count,
        coalesce(event_counts.events_count, 0) as events_count,
        message_counts.messages_count - message_counts.unknown_type_count - coalesce(event_counts.events_count, 0)
            as redelivered_count,
        message_counts.unknown_type_count,
        message_counts.invalid_amount_count,
        message_counts.late_count,
        coalesce(event_counts.out_of_order_count, 0) as out_of_order_count,
        coalesce(event_counts.orphan_count, 0) as orphan_count
    from message_counts
    left join event_counts
        on
            message_counts.source_system = event_counts.source_system
            and message_counts.event_type = event_counts.event_type
)

select * from final
