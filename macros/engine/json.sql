{#-
  JSON documents, parsed once per row.

  `json_document(column, structure)` parses `column` into a value whose keys `json_text` and `json_json` read.
  `structure` is a mapping of key → 'text', 'json' (arrays and open maps stay JSON) or a nested mapping. A key that
  is absent, or has another shape than the structure says, is null: a document never fails a build.
-#}
{% macro json_document(column, structure) -%}
    {{ return(adapter.dispatch('json_document')(column, structure)) }}
{%- endmacro %}

{% macro default__json_document(column, structure) -%}
    from_json({{ column }}, '{{ json_spark_structure(structure) }}')
{%- endmacro %}

{% macro duckdb__json_document(column, structure) -%}
    from_json({{ column }}, '{{ json_duckdb_structure(structure) }}')
{%- endmacro %}

{% macro snowflake__json_document(column, structure) -%}
    try_parse_json(to_varchar({{ column }}))
{%- endmacro %}

{% macro json_duckdb_structure(structure) -%}
    {%- set types = {'text': '"VARCHAR"', 'json': '"JSON"'} -%}
    {
    {%- for key, kind in structure.items() -%}
        "{{ key }}":{{ json_duckdb_structure(kind) | trim if kind is mapping else types[kind] }}{{ ',' if not loop.last }}
    {%- endfor -%}
    }
{%- endmacro %}

{% macro json_spark_structure(structure) -%}
    {%- for key, kind in structure.items() -%}
        `{{ key }}` {{ 'struct<' ~ (json_spark_structure(kind) | trim) ~ '>' if kind is mapping else 'string' }}
        {{- ', ' if not loop.last }}
    {%- endfor -%}
{%- endmacro %}


{#- The text at `path` ('date.created') of a parsed document. -#}
{% macro json_text(document, path) -%}
    {{ return(adapter.dispatch('json_text')(document, path)) }}
{%- endmacro %}

{% macro default__json_text(document, path) -%}
    {{ document }}{% for key in path.split('.') %}['{{ key }}']{% endfor %}
{%- endmacro %}

{% macro snowflake__json_text(document, path) -%}
    to_varchar({{ default__json_text(document, path) }})
{%- endmacro %}


{#- The array or open map at `path` of a parsed document, still JSON. -#}
{% macro json_json(document, path) -%}
    {{ return(default__json_text(document, path)) }}
{%- endmacro %}


{#- Number of items of a JSON array; 0 when it is missing. -#}
{% macro json_array_size(array) -%}
    {{ return(adapter.dispatch('json_array_size')(array)) }}
{%- endmacro %}

{% macro default__json_array_size(array) -%}
    coalesce(json_array_length({{ array }}), 0)
{%- endmacro %}

{% macro duckdb__json_array_size(array) -%}
    cast(coalesce(json_array_length({{ array }}), 0) as integer)
{%- endmacro %}

{% macro snowflake__json_array_size(array) -%}
    coalesce(array_size({{ array }}), 0)
{%- endmacro %}


{#- Number of objects in a JSON array whose `key` is `value`; without `value`, whose `key` is not null. -#}
{% macro json_array_count(array, key, value=none) -%}
    {{ return(adapter.dispatch('json_array_count')(array, key, value)) }}
{%- endmacro %}

{% macro default__json_array_count(array, key, value) -%}
    {%- set test = 'is not null' if value is none else "= '" ~ value ~ "'" -%}
    coalesce(size(filter(from_json({{ array }}, 'array<map<string,string>>'), item -> item['{{ key }}'] {{ test }})), 0)
{%- endmacro %}

{% macro duckdb__json_array_count(array, key, value) -%}
    {%- set test = 'is not null' if value is none else "= '" ~ value ~ "'" -%}
    cast(coalesce(
        len(list_filter(try_cast({{ array }} as json []), lambda item : json_extract_string(item, '$.{{ key }}') {{ test }})),
        0
    ) as integer)
{%- endmacro %}

{% macro snowflake__json_array_count(array, key, value) -%}
    {%- set test = 'is not null' if value is none else "= '" ~ value ~ "'" -%}
    coalesce(array_size(filter({{ array }}, item -> to_varchar(item['{{ key }}']) {{ test }})), 0)
{%- endmacro %}


{#-
  Rows of an open map ({"USD": 1.08, "JPY": 163.4}): `json_map_rows(relation, column)` is a from clause that
  yields the relation's columns plus `map_key` and `map_value` (text).
-#}
{% macro json_map_rows(relation, column) -%}
    {{ return(adapter.dispatch('json_map_rows')(relation, column)) }}
{%- endmacro %}

{% macro default__json_map_rows(relation, column) -%}
    {{ relation }}
    lateral view explode(from_json({{ column }}, 'map<string,string>')) entries as map_key, map_value
{%- endmacro %}

{% macro duckdb__json_map_rows(relation, column) -%}
    (
        select
            {{ relation }}.*,
            unnest(map_keys({{ relation }}.entries)) as map_key,
            unnest(map_values({{ relation }}.entries)) as map_value
        from (
            select
                {{ relation }}.*,
                from_json({{ column }}, '"MAP(VARCHAR, VARCHAR)"') as entries
            from {{ relation }}
        ) as {{ relation }}
    ) as {{ relation }}
{%- endmacro %}

{% macro snowflake__json_map_rows(relation, column) -%}
    (
        select
            {{ relation }}.*,
            entries.key as map_key,
            to_varchar(entries.value) as map_value
        from {{ relation }}, lateral flatten(input => {{ column }}) as entries
    ) as {{ relation }}
{%- endmacro %}


{#-
  Rows of a JSON array of plain values (["CAP-TXN001", "FEE-TXN001"]): `json_array_rows(relation, column)` is a from
  clause that yields the relation's columns plus `array_value` (text). What is no array, or is empty, yields no row.
-#}
{% macro json_array_rows(relation, column) -%}
    {{ return(adapter.dispatch('json_array_rows')(relation, column)) }}
{%- endmacro %}

{% macro default__json_array_rows(relation, column) -%}
    {{ relation }}
    lateral view explode(from_json({{ column }}, 'array<string>')) entries as array_value
{%- endmacro %}

{% macro duckdb__json_array_rows(relation, column) -%}
    (
        select
            {{ relation }}.*,
            unnest(from_json({{ column }}, '["VARCHAR"]')) as array_value
        from {{ relation }}
    ) as {{ relation }}
{%- endmacro %}

{% macro snowflake__json_array_rows(relation, column) -%}
    (
        select
            {{ relation }}.*,
            to_varchar(entries.value) as array_value
        from {{ relation }}, lateral flatten(input => {{ column }}) as entries
    ) as {{ relation }}
{%- endmacro %}
