-- Every row that a source held is accounted for: by the load that read it, by the quarantine, and by the model that
-- removes duplicates. Returns the account that does not balance, with both numbers.
{{ config(tags=['invariant'], meta={'invariant': 2}) }}
with

loads as (
    select
        load_id,
        source_system,
        table_name,
        source_rows,
        unchanged_rows + landed_rows + quarantined_rows as accounted_rows,
        quarantined_rows
    from {{ ref('stg_ops__load_manifest') }}
    where load_status = 'completed'
),

refused as (
    select
        load_id,
        source_system,
        table_name,
        count(distinct source_position) as refused_rows
    from {{ ref('stg_ops__quarantine') }}
    group by load_id, source_system, table_name
),

quarantined as (
    select
        loads.load_id,
        loads.table_name,
        loads.quarantined_rows,
        coalesce(refused.refused_rows, 0) as refused_rows
    from loads
    left join refused
        on
            loads.load_id = refused.load_id
            and loads.source_system = refused.source_system
            and loads.table_name = refused.table_name
),

oltp_payments as (
    select count(*) as payments from {{ ref('stg_oltp__transaction') }}
),

-- a payment document can be stored twice; the latest speaks
mongodb_payments as (
    select count(distinct coalesce(transaction_id, '')) as payments from {{ ref('stg_mongodb__transactions') }}
),

unified_payments as (
    select count(*) as payments from {{ ref('int_transactions_unified') }}
),

staged_events as (
    select count(*) as events from {{ ref('stg_stream__payments_transactions') }}
    where is_known_event_type
),

-- an event can be delivered twice, and one without an id stands for itself
deduplicated_events as (
    select coalesce(sum(deliveries_count), 0) as events from {{ ref('int_payment_events_deduped') }}
),

balances as (
    select
        'load ' || load_id || ' of ' || table_name as balance,
        source_rows as expected_rows,
        accounted_rows as found_rows
    from loads
    union all
    select
        'quarantine of load ' || load_id || ' of ' || table_name as balance,
        quarantined_rows as expected_rows,
        refused_rows as found_rows
    from quarantined
    union all
    select
        'payments' as balance,
        oltp_payments.payments + mongodb_payments.payments as expected_rows,
        unified_payments.payments as found_rows
    from oltp_payments
    cross join mongodb_payments
    cross join unified_payments
    union all
    select
        'events' as balance,
        staged_events.events as expected_rows,
        deduplicated_events.events as found_rows
    from staged_events
    cross join deduplicated_events
)

select
    balance,
    expected_rows,
    found_rows
from balances
where expected_rows != found_rows
