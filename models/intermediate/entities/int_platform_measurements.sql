-- One row per measurement of the whole platform and day: what the project declares, and how old its records are.
{{
    config(
        materialized='incremental',
        unique_key='measurement_key',
        full_refresh=false,
        on_schema_change='append_new_columns',
    )
}}
-- what the project declared on a day cannot be landed again: rows of earlier days stay, also when all else is rebuilt
with

loads as (
    select max(finished_at) as measured_at
    from {{ ref('stg_ops__load_manifest') }}
    where load_status = 'completed'
),

declared as (
    select
        classification,
        is_classified,
        is_published
    from {{ ref('int_column_classification') }}
),

retention as (
    select
        record_type,
        retention_months
    from {{ ref('retention_classes') }}
),

payments as (
    select event_at_utc as recorded_at
    from {{ ref('int_transactions_unified') }}
),

feedback as (
    select created_at as recorded_at
    from {{ ref('stg_mongodb__customer_feedback') }}
),

interactions as (
    select occurred_at as recorded_at
    from {{ ref('stg_mongodb__user_interactions') }}
),

errors as (
    select occurred_at as recorded_at
    from {{ ref('stg_mongodb__error_logs') }}
),

oldest as (
    {%- for record_type in ['payments', 'feedback', 'interactions', 'errors'] %}
    select
        '{{ record_type }}' as record_type,
        min(recorded_at) as oldest_at
    from {{ record_type }}
    {{ 'union all' if not loop.last }}
    {%- endfor %}
),

counts as (
    select
        'classification_coverage' as evidence_kind,
        sum(case when is_classified then 1 else 0 end) as conforming_count,
        count(*) as measured_count,
        'columns that carry a classification' as what
    from declared

    union all

    select
        'pseudonymised_publication' as evidence_kind,
        sum(case when classification in ('personal', 'sensitive', 'pan', 'forbidden') then 0 else 1 end)
            as conforming_count,
        count(*) as measured_count,
        'published columns that hold no personal value in clear' as what
    from declared
    where is_published

    union all

    select
        'no_authentication_data' as evidence_kind,
        sum(case when classification = 'forbidden' then 0 else 1 end) as conforming_count,
        count(*) as measured_count,
        'columns that are not sensitive authentication data' as what
    from declared

    union all

    select
        'storage_limitation' as evidence_kind,
        sum(
            case
                when
                    oldest.oldest_at
                    < {{ dbt.dateadd('month', '-retention.retention_months', 'loads.measured_at') }}
                    then 0
                else 1
            end
        ) as conforming_count,
        count(*) as measured_count,
        'kinds of records without a row older than its retention class' as what
    from retention
    inner join oldest on retention.record_type = oldest.record_type
    cross join loads
),

final as (
    select
        {{ hash_key(['counts.evidence_kind', utc_date('loads.measured_at')]) }} as measurement_key,
        counts.evidence_kind,
        cast(counts.conforming_count as bigint) as conforming_count,
        cast(counts.measured_count as bigint) as measured_count,
        counts.what,
        loads.measured_at
    from counts
    cross join loads
    where loads.measured_at is not null
)

select * from final
