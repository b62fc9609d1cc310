-- One row per table and load: what the source held and what became of it.
with

source as (
    select
        load_id,
        run_id,
        source as source_system,
        table_name,
        mode as load_mode,
        status as load_status,
        cursor_from,
        cursor_to,
        key_checksum,
        schema_fingerprint,
        source_rows,
        unchanged_rows,
        landed_rows,
        deleted_rows,
        quarantined_rows,
        unknown_keys as unknown_keys_count,
        unknown_events as unknown_events_count,
        lake_files as lake_files_count,
        lake_bytes,
        amount_sum,
        started_at,
        finished_at
    from {{ source('ops', 'load_manifest') }}
)

select * from source
