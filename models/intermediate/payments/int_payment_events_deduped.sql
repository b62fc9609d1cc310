-- One row per event of a known type: of an event delivered more than once, the one that says it happened first.
{{ config(
    materialized='incremental',
    incremental_strategy='delete+insert',
    unique_key='event_id',
) }}
{#- an event that forgot its id cannot be recognised again: its position stands in for it -#}
{%- set delivered_event_id -%}
coalesce(
    event_id,
    kafka_topic || '-' || cast(kafka_partition as {{ type_text() }})
    || '-' || cast(kafka_offset as {{ type_text() }})
)
{%- endset %}
{%- set last_landed -%}
(select coalesce(max(built.loaded_at), {{ utc('1900-01-01') }}) from {{ this }} as built)
{%- endset %}
{%- set whole_messages %}
    select
        kafka_topic,
        kafka_partition,
        kafka_offset,
        {{ delivered_event_id | indent(8) }} as event_id,
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
        has_invalid_amount,
        arrival_date,
        available_at,
        occurred_at,
        produced_at,
        loaded_at
    from {{ ref('stg_stream__payments_transactions') }}
    where
        is_known_event_type
{%- endset %}
with

{% if is_incremental() -%}
-- the events of which a delivery has landed since the last run are made again, from all their deliveries
arrived as (
    {{- whole_messages }}
        and loaded_at > {{ last_landed }}
),

-- earlier deliveries are few, and found by narrow columns: to read whole messages for that would take five times as long
earlier as (
    select
        kafka_topic,
        kafka_partition,
        kafka_offset
    from {{ ref('stg_stream__payments_transactions') }}
    where
        is_known_event_type
        and loaded_at <= {{ last_landed }}
        and {{ delivered_event_id | indent(8) }} in (select arrived.event_id from arrived)
),

delivered_before as (
    {{- whole_messages }}
        and (kafka_topic, kafka_partition, kafka_offset) in (
            select
                earlier.kafka_topic,
                earlier.kafka_partition,
                earlier.kafka_offset
            from earlier
        )
),

events as (
    select * from arrived
    union all
    select * from delivered_before
),

deliveries as (
    select
        event_id,
        kafka_topic,
        kafka_partition,
        kafka_offset,
        occurred_at
    from events
),
{%- else -%}
events as (
    {{- whole_messages }}
),

deliveries as (
    select
        {{ delivered_event_id | indent(8) }} as event_id,
        kafka_topic,
        kafka_partition,
        kafka_offset,
        occurred_at
    from {{ ref('stg_stream__payments_transactions') }}
    where is_known_event_type
),
{%- endif %}

-- few events come twice: sorting or keeping all of them for their sake would cost more than everything else here
repeated as (
    select event_id
    from deliveries
    group by event_id
    having count(*) > 1
),

-- total: no two messages share topic, partition and offset, so every run keeps the same one
ranked as (
    select
        deliveries.event_id,
        deliveries.kafka_topic,
        deliveries.kafka_partition,
        deliveries.kafka_offset,
        row_number() over (
            partition by deliveries.event_id
            order by
                deliveries.occurred_at, deliveries.kafka_topic, deliveries.kafka_partition, deliveries.kafka_offset
        ) as delivery_number,
        count(*) over (partition by deliveries.event_id) as deliveries_count
    from deliveries
    inner join repeated on deliveries.event_id = repeated.event_id
),

first_deliveries as (
    select
        event_id,
        kafka_topic,
        kafka_partition,
        kafka_offset,
        deliveries_count
    from ranked
    where delivery_number = 1
),

kept as (
    select
        events.*,
        coalesce(first_deliveries.deliveries_count, 1) as deliveries_count
    from events
    left join first_deliveries on events.event_id = first_deliveries.event_id
    where
        first_deliveries.event_id is null
        or (
            events.kafka_topic = first_deliveries.kafka_topic
            and events.kafka_partition = first_deliveries.kafka_partition
            and events.kafka_offset = first_deliveries.kafka_offset
        )
),

final as (
    select
        event_id,
        case
            when transaction_id is not null then {{ hash_key(['source_system', 'transaction_id']) }}
        end as transaction_key,
        transaction_id,
        {{ canonical_merchant_id('merchant_id') }} as merchant_id,
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
        kafka_topic,
        kafka_partition,
        kafka_offset,
        amount,
        schema_version,
        attempt_number,
        cast(deliveries_count as bigint) as deliveries_count,
        is_fraud,
        has_invalid_amount,
        arrival_date,
        available_at,
        occurred_at,
        produced_at,
        loaded_at
    from kept
)

select * from final
