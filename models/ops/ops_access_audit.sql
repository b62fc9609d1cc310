-- One row per recorded event and resource: who did what to which thing, when, from where, with which outcome.
with

events as (
    select
        event_system,
        event_uid,
        resource_number,
        log_sequence,
        event_at,
        event_type,
        ocsf_class_uid,
        event_status,
        failure_class,
        actor_name,
        actor_type,
        actor_role,
        origin_host,
        origin_address,
        resource_type,
        resource_name,
        statement_digest,
        rows_returned
    from {{ ref('stg_ops__access_audit') }}
),

final as (
    select
        event_system,
        event_uid,
        cast(resource_number as integer) as resource_number,
        log_sequence,
        event_type,
        cast(ocsf_class_uid as integer) as ocsf_class_uid,
        event_status,
        failure_class,
        actor_name,
        actor_type,
        actor_role,
        origin_host,
        origin_address,
        resource_type,
        resource_name,
        statement_digest,
        rows_returned,
        -- PCI DSS 10.2.1: what an auditor asks for first
        event_type in ('reveal', 'erase', 'export', 'grant', 'key_use', 'key_create', 'key_rotate')
        or event_status = 'Failure' as is_sensitive,
        event_status = 'Success' as is_success,
        event_at
    from events
)

select * from final
