-- One row per column that a source, seed or model of the project declares: its classification, for auditors.
with

final as (
    select
        column_key,
        resource_type,
        schema_name,
        relation_name,
        column_name,
        classification,
        is_classified,
        is_published
    from {{ ref('int_column_classification') }}
)

select * from final
