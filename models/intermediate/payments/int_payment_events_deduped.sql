-- One row per event of a known type: of an event delivered more than once, the one that says it happened first.
{{ config(
    materialized='incremental',
    incremental_strategy='delete+insert',
    unique_key='event_id',
) }}
with

messages as (
    select
        kafka_topic,
        kafka_partition,
        kafka_offset,
        -- an event that forgot its id cannot be recognised again: its position stands in for it
        coalesce(
            event_id,
            kafka_topic || '-' || cast(kafka_partition as {{ type_text() }})
            || '-' || cast(kafka_offset as {{ type_text() }})
        ) as event_id,
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
    where is_known_event_type
),

-- in an incremental run: the events of which a delivery has landed since the last one, with all their deliveries
events as (
    select messages.*
    from messages
    {% if is_incremental() -%}
    where
        event_id in (
            select arrived.event_id
            from messages as arrived
            where arrived.loaded_at > (select coalesce(max(built.loaded_at), {{ utc('1900-01-01') }}) from {{ this }} as built)
        )
    {%- endif %}
),

identified as (
    select
        kafka_topic,
        kafka_partition,
        kafka_offset,
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
    from events
),

-- few events come twice: sorting all of them for their sake would cost more than everything else here
repeated as (
    select
        event_id,
        count(*) as deliveries_count
    from identified
    group by event_id
    having count(*) > 1
),

-- total: no two messages share topic, partition and offset, so every run keeps the same one
ranked as (
    select
        identified.*,
        1 as delivery_number,
        cast(1 as bigint) as deliveries_count
    from identified
    where identified.event_id not in (select repeated.event_id from repeated)

    union all

    select
        identified.*,
        row_number() over (
            partition by identified.event_id
            order by identified.occurred_at, identified.kafka_topic, identified.kafka_partition, identified.kafka_offset
        ) as delivery_number,
        repeated.deliveries_count
    from identified
    inner join repeated on identified.event_id = repeated.event_id
),

final as (
    select
        event_id,
        transaction_key,
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
        kafka_topic,
        kafka_partition,
        kafka_offset,
        amount,
        schema_version,
        attempt_number,
        deliveries_count,
        is_fraud,
        has_invalid_amount,
        arrival_date,
        available_at,
        occurred_at,
        produced_at,
        loaded_at
    from ranked
    where delivery_number = 1
)

select * from final
