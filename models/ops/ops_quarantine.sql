-- One row per load, table and reason: how many source rows were refused.
with

quarantine as (
    select
        load_id,
        source_system,
        table_name,
        refusal_reason,
        quarantined_at,
        resolved_at
    from {{ ref('stg_ops__quarantine') }}
),

-- counts only: a payload, even tokenised, has no business outside raw
final as (
    select
        load_id,
        source_system,
        table_name,
        refusal_reason,
        count(*) as refused_rows,
        count(*) - count(resolved_at) as open_rows,
        min(quarantined_at) as first_quarantined_at,
        max(quarantined_at) as last_quarantined_at
    from quarantine
    group by load_id, source_system, table_name, refusal_reason
)

select * from final
