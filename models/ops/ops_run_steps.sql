-- One row per run and step of a refresh: how it ended and how long it took.
with

run_steps as (
    select
        run_id,
        step_name,
        step_status,
        duration_seconds,
        started_at,
        finished_at
    from {{ ref('stg_ops__run_steps') }}
),

final as (
    select
        run_id,
        step_name,
        step_status,
        cast(row_number() over (partition by run_id order by started_at, step_name) as integer) as step_number,
        duration_seconds,
        started_at,
        finished_at
    from run_steps
)

select * from final
