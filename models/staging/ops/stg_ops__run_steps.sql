-- One row per step of a refresh run.
with

source as (
    select
        run_id,
        step as step_name,
        status as step_status,
        seconds as duration_seconds,
        detail as step_detail,
        started_at,
        finished_at
    from {{ source('ops', 'run_steps') }}
)

select * from source
