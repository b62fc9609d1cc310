{#-
  Rows of a JSON array of objects ([{"rule": "new_device", "weight": 0.4}, …]): `json_object_rows(relation, column, keys)`
  is a from clause that yields the relation's columns plus, for each of `keys`, its text as `item_<key>`. An array that
  is missing, empty or no array yields no row.
-#}
{% macro json_object_rows(relation, column, keys) -%}
    {{ return(adapter.dispatch('json_object_rows')(relation, column, keys)) }}
{%- endmacro %}

{% macro default__json_object_rows(relation, column, keys) -%}
    (
        select
            {{ relation }}.*
            {%- for key in keys %},
            item['{{ key }}'] as item_{{ key }}
            {%- endfor %}
        from {{ relation }}
        lateral view explode(from_json({{ column }}, 'array<map<string,string>>')) items as item
    ) as {{ relation }}
{%- endmacro %}

{% macro duckdb__json_object_rows(relation, column, keys) -%}
    (
        select
            {{ relation }}.*
            {%- for key in keys %},
            json_extract_string({{ relation }}.item, '$.{{ key }}') as item_{{ key }}
            {%- endfor %}
        from (
            select
                {{ relation }}.*,
                unnest(try_cast({{ column }} as json [])) as item
            from {{ relation }}
        ) as {{ relation }}
    ) as {{ relation }}
{%- endmacro %}

{% macro snowflake__json_object_rows(relation, column, keys) -%}
    (
        select
            {{ relation }}.*
            {%- for key in keys %},
            to_varchar(items.value['{{ key }}']) as item_{{ key }}
            {%- endfor %}
        from {{ relation }}, lateral flatten(input => {{ column }}) as items
    ) as {{ relation }}
{%- endmacro %}
