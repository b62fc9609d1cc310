-- One row per table and load: what the source held, what became of it, and whether the sum holds.
with

manifest as (
    select
        load_id,
        run_id,
        source_system,
        table_name,
        load_mode,
        load_status,
        source_rows,
        unchanged_rows,
        landed_rows,
        deleted_rows,
        quarantined_rows,
        unknown_keys_count,
        unknown_events_count,
        lake_files_count,
        lake_bytes,
        amount_sum,
        started_at,
        finished_at
    from {{ ref('stg_ops__load_manifest') }}
),

final as (
    select
        load_id,
        run_id,
        source_system,
        table_name,
        load_mode,
        load_status,
        source_rows,
        unchanged_rows,
        landed_rows,
        deleted_rows,
        quarantined_rows,
        unknown_keys_count,
        unknown_events_count,
        lake_files_count,
        lake_bytes,
        amount_sum,
        -- invariant 2: every row the source held was taken, known already, or refused with a reason
        source_rows = unchanged_rows + landed_rows + quarantined_rows as is_balanced,
        started_at,
        finished_at,
        {{ seconds_between('started_at', 'finished_at') }} as duration_seconds
    from manifest
)

select * from final
