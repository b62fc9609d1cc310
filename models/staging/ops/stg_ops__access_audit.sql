-- One row per recorded event and resource that it concerned, of this platform and of Snowflake.
with

source as (
    select
        event_system,
        event_uid,
        resource_number,
        log_sequence,
        event_at,
        event_code as event_type,
        class_uid as ocsf_class_uid,
        activity_id as ocsf_activity_id,
        status as event_status,
        status_detail as failure_class,
        actor_name,
        actor_uid,
        actor_type,
        actor_role,
        origin_host,
        origin_address,
        resource_type,
        resource_name,
        statement_digest,
        rows_returned
    from {{ source('ops', 'access_audit') }}
)

select * from source
