-- One row per message of `payments.transactions`: topic, partition and offset. Redelivered events are still here.
{{ config(
    materialized='incremental',
    incremental_strategy='delete+insert',
    unique_key=['kafka_topic', 'kafka_partition', 'kafka_offset'],
) }}
{%- set structure = {
    'schema_version': 'text',
    'event_id': 'text',
    'event_type': 'text',
    'source_system': 'text',
    'transaction_id': 'text',
    'occurred_at': 'text',
    'amount': 'text',
    'currency_code': 'text',
    'reason': 'text',
    'actor': 'text',
    'attributes': {
        'attempt_id': 'text',
        'attempt_number': 'text',
        'decline_code': 'text',
        'three_ds': {'outcome': 'text', 'eci': 'text', 'exemption': 'text'},
        'capture_id': 'text',
        'available_at': 'text',
        'refund_id': 'text',
        'dispute_id': 'text',
        'reason_code': 'text',
        'is_fraud': 'text',
        'network': 'text',
        'report_id': 'text',
        'label_source': 'text',
        'review_result': 'text',
        'merchant_id': 'text',
        'rule': 'text',
        'payout_id': 'text',
        'movement_id': 'text',
        'movement_ids': 'json',
        'arrival_date': 'text',
        'fee_id': 'text',
        'fee_type': 'text',
    },
} %}
with

landed as (
    select
        kafka_topic,
        kafka_partition,
        kafka_offset,
        message_key,
        document,
        produced_at,
        _load_id as load_id,
        _landed_at as loaded_at
    from {{ source('stream', 'payments_transactions') }}
    where _deleted_at is null{{ and_landed_since() }}
),

positions as (
    select
        kafka_topic,
        kafka_partition,
        kafka_offset,
        _load_id as load_id,
        _landed_at as loaded_at
    from {{ source('stream', 'payments_transactions') }}
    where _deleted_at is null{{ and_landed_since() }}
),

-- a crash between landing and marking can land a message twice; its position says that it is the same one
repeated as (
    select
        kafka_topic,
        kafka_partition,
        kafka_offset
    from positions
    group by kafka_topic, kafka_partition, kafka_offset
    having count(*) > 1
),

-- hardly any is: ranking all messages for their sake would hold every document in memory
ranked as (
    select
        kafka_topic,
        kafka_partition,
        kafka_offset,
        load_id,
        row_number() over (
            partition by kafka_topic, kafka_partition, kafka_offset
            order by max(loaded_at) desc, load_id desc
        ) as landing_recency
    from positions
    where
        exists (
            select 1
            from repeated
            where
                repeated.kafka_topic = positions.kafka_topic
                and repeated.kafka_partition = positions.kafka_partition
                and repeated.kafka_offset = positions.kafka_offset
        )
    group by kafka_topic, kafka_partition, kafka_offset, load_id
),

superseded as (
    select
        kafka_topic,
        kafka_partition,
        kafka_offset,
        load_id
    from ranked
    where landing_recency > 1
),

source as (
    select
        kafka_topic,
        kafka_partition,
        kafka_offset,
        message_key,
        {{ json_document('document', structure) }} as parsed,
        produced_at,
        loaded_at
    from landed
    where
        not exists (
            select 1
            from superseded
            where
                superseded.kafka_topic = landed.kafka_topic
                and superseded.kafka_partition = landed.kafka_partition
                and superseded.kafka_offset = landed.kafka_offset
                and superseded.load_id = landed.load_id
        )
),

flattened as (
    select
        kafka_topic,
        kafka_partition,
        kafka_offset,
        message_key,
        {{ json_text('parsed', 'event_id') }} as event_id,
        {{ json_text('parsed', 'transaction_id') }} as transaction_id,
        {{ json_text('parsed', 'attributes.merchant_id') }} as merchant_id,
        {{ json_text('parsed', 'attributes.attempt_id') }} as attempt_id,
        {{ json_text('parsed', 'attributes.capture_id') }} as capture_id,
        {{ json_text('parsed', 'attributes.refund_id') }} as refund_id,
        {{ json_text('parsed', 'attributes.dispute_id') }} as dispute_id,
        {{ json_text('parsed', 'attributes.report_id') }} as report_id,
        {{ json_text('parsed', 'attributes.payout_id') }} as payout_id,
        {{ json_text('parsed', 'attributes.movement_id') }} as movement_id,
        {{ json_text('parsed', 'attributes.fee_id') }} as fee_id,
        {{ json_text('parsed', 'event_type') }} as event_type,
        {{ json_text('parsed', 'source_system') }} as source_system,
        upper({{ json_text('parsed', 'currency_code') }}) as currency_code,
        {{ json_text('parsed', 'reason') }} as reason,
        {{ json_text('parsed', 'actor') }} as actor,
        {{ json_text('parsed', 'attributes.decline_code') }} as decline_code,
        {{ json_text('parsed', 'attributes.three_ds.outcome') }} as three_ds_outcome,
        {{ json_text('parsed', 'attributes.three_ds.eci') }} as three_ds_eci,
        {{ json_text('parsed', 'attributes.three_ds.exemption') }} as three_ds_exemption,
        {{ json_text('parsed', 'attributes.reason_code') }} as dispute_reason_code,
        {{ json_text('parsed', 'attributes.network') }} as network,
        {{ json_text('parsed', 'attributes.label_source') }} as label_source,
        {{ json_text('parsed', 'attributes.rule') }} as fraud_rule,
        {{ json_text('parsed', 'attributes.review_result') }} as review_result,
        {{ json_text('parsed', 'attributes.fee_type') }} as fee_type,
        {{ json_json('parsed', 'attributes.movement_ids') }} as movement_ids,
        {{ json_text('parsed', 'amount') }} as amount_text,
        {{ try_to_money(json_text('parsed', 'amount')) }} as amount,
        {{ try_to(json_text('parsed', 'schema_version'), 'integer') }} as schema_version,
        {{ try_to(json_text('parsed', 'attributes.attempt_number'), 'integer') }} as attempt_number,
        {{ try_to(json_text('parsed', 'attributes.is_fraud'), 'boolean') }} as is_fraud,
        {{ try_to(json_text('parsed', 'attributes.arrival_date'), 'date') }} as arrival_date,
        {{ try_to_utc(json_text('parsed', 'attributes.available_at')) }} as available_at,
        {{ try_to_utc(json_text('parsed', 'occurred_at')) }} as occurred_at,
        produced_at,
        loaded_at
    from source
),

-- an event without an amount (an authentication) is no error; an amount that is no number is one
final as (
    select
        kafka_topic,
        kafka_partition,
        kafka_offset,
        message_key,
        event_id,
        transaction_id,
        merchant_id,
        attempt_id,
        capture_id,
        refund_id,
        dispute_id,
        report_id,
        payout_id,
        movement_id,
        fee_id,
        event_type,
        source_system,
        currency_code,
        reason,
        actor,
        decline_code,
        three_ds_outcome,
        three_ds_eci,
        three_ds_exemption,
        dispute_reason_code,
        network,
        label_source,
        fraud_rule,
        review_result,
        fee_type,
        movement_ids,
        amount,
        schema_version,
        attempt_number,
        is_fraud,
        coalesce(event_type in ({{ quoted(payment_event_types()) }}), false) as is_known_event_type,
        amount_text is not null and amount is null as has_invalid_amount,
        arrival_date,
        available_at,
        coalesce(occurred_at, produced_at) as occurred_at,
        produced_at,
        loaded_at
    from flattened
)

select * from final
