-- One row per refused source row and reason.
with

source as (
    select
        load_id,
        source as source_system,
        table_name,
        position as source_position,
        reason as refusal_reason,
        payload as tokenised_payload,
        quarantined_at,
        resolved_at
    from {{ source('ops', 'quarantine') }}
)

select * from source
