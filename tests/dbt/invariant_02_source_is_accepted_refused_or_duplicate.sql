-- Every row that a source held is accounted for: by the load that read it, by the quarantine, and by the model that
-- removes duplicates. Returns the account that does not balance, with both numbers.
{{ config(tags=['invariant'], meta={'invariant': 2}) }}
with

quarantined as (
    select
        load_id,
        source_system,
        table_name,
        count(distinct source_position) as quarantined_rows
    from {{ ref('stg_ops__quarantine') }}
    group by load_id, source_system, table_name
),

loads as (
    select
        manifest.load_id || '/' || manifest.table_name as account,
        manifest.source_rows as expected,
        manifest.unchanged_rows + manifest.landed_rows + manifest.quarantined_rows as found,
        manifest.quarantined_rows as refused_by_load,
        coalesce(quarantined.quarantined_rows, 0) as refused_in_quarantine
    from {{ ref('stg_ops__load_manifest') }} as manifest
    left join quarantined
        on
            manifest.load_id = quarantined.load_id
            and manifest.source_system = quarantined.source_system
            and manifest.table_name = quarantined.table_name
    where manifest.load_status = 'completed'
),

-- a payment document can be stored twice; the latest speaks
payments as (
    select
        'payments' as account,
        oltp.payments + mongodb.payments as expected,
        unified.payments as found
    from (select count(*) as payments from {{ ref('stg_oltp__transaction') }}) as oltp
    cross join (
        select count(distinct coalesce(transaction_id, '')) as payments from {{ ref('stg_mongodb__transactions') }}
    ) as mongodb
    cross join (select count(*) as payments from {{ ref('int_transactions_unified') }}) as unified
),

-- an event can be delivered twice, and one without an id stands for itself
events as (
    select
        'events' as account,
        staged.events as expected,
        deduplicated.events as found
    from (
        select count(*) as events from {{ ref('stg_stream__payments_transactions') }} where is_known_event_type
    ) as staged
    cross join (
        select coalesce(sum(deliveries_count), 0) as events from {{ ref('int_payment_events_deduped') }}
    ) as deduplicated
)

select account, expected, found from loads where expected != found
union all
select account, refused_by_load, refused_in_quarantine from loads where refused_by_load != refused_in_quarantine
union all
select account, expected, found from payments where expected != found
union all
select account, expected, found from events where expected != found
