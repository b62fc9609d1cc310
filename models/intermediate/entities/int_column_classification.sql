-- One row per column that a source, seed, snapshot or model of the project declares, with its classification.
{#-
  Read from the project's own graph while dbt compiles: offline, and equal for equal files. The order is that of the
  names, so that the statement is too. Before dbt has parsed everything there is no graph, and the statement is empty.
-#}
{%- set columns = [] -%}
{%- if execute -%}
    {%- set nodes = graph.nodes.values() | selectattr('resource_type', 'in', ['model', 'seed']) | list -%}
    {%- for node in nodes + (graph.sources.values() | list) -%}
        {%- for column in node.columns.values() -%}
            {%- set meta = (column.config.meta if column.config else none) or column.meta or {} -%}
            {%- do columns.append([
                node.resource_type, node.schema, node.name, column.name | lower, meta.get('classification') or '',
            ]) -%}
        {%- endfor -%}
    {%- endfor -%}
{%- endif %}
with

declared as (
    select
        resource_type,
        schema_name,
        relation_name,
        column_name,
        classification
    from (
        values
        {%- for column in columns | sort %}
        ({{ quoted(column) }}){{ ',' if not loop.last }}
        {%- else %}
        ('', '', '', '', '')
        {%- endfor %}
    ) as entries (resource_type, schema_name, relation_name, column_name, classification)
),

final as (
    select
        {{ hash_key(['schema_name', 'relation_name', 'column_name']) }} as column_key,
        resource_type,
        schema_name,
        relation_name,
        column_name,
        nullif(classification, '') as classification,
        classification <> '' as is_classified,
        schema_name in ('public', 'features', 'ops') as is_published
    from declared
    where relation_name <> ''
)

select * from final
