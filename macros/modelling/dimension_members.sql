{#- The durable key of a member of `dim_<entity>`: its canonical id is the one the OLTP system gave it. -#}
{% macro member_key(member_id) -%}
    {{ hash_key(["'oltp'", member_id]) }}
{%- endmacro %}

{#- The key of one version: by when it began, not by its number, which a late version in front of it would shift. -#}
{% macro member_version_key(member_id, valid_from) -%}
    {{ hash_key(["'oltp'", member_id, utc_microseconds(valid_from)]) }}
{%- endmacro %}


{#-
  A fact's key into a dimension: the member that was found, else '-3' for one that was erased, else '-1' for one that is
  named but unknown, else '-2' where the source names none. A left join and this keep every fact.
-#}
{% macro key_or_default(found_key, natural_id) -%}
    coalesce(
        {{ found_key }},
        case
            when {{ natural_id }} is null then '{{ var("not_applicable_key") }}'
            when cast({{ natural_id }} as {{ type_text() }}) = '{{ var("erased_key") }}' then '{{ var("erased_key") }}'
            else '{{ var("unknown_key") }}'
        end
    )
{%- endmacro %}


{#-
  The three members that stand for "no member": unknown, not applicable, erased.

  `columns` maps every column of the dimension, in its order, to 'key' (the member's own key; 'number'
  for a number), 'label' (its name) or
  an SQL expression. Yields three selects joined by union all.
-#}
{% macro default_members(columns) -%}
    {%- set members = {
        var('unknown_key'): 'Unknown',
        var('not_applicable_key'): 'Not applicable',
        var('erased_key'): 'Erased',
    } -%}
    {%- for key, label in members.items() %}
    select
        {%- for column, content in columns.items() %}
        {{ {'key': "'" ~ key ~ "'", 'number': key, 'label': "'" ~ label ~ "'"}.get(content, content) }} as {{ column }}{{ ',' if not loop.last }}
        {%- endfor %}
    {{ 'union all' if not loop.last }}
    {%- endfor %}
{%- endmacro %}

{#- A null of a type, for `default_members`. -#}
{% macro null_of(type) -%}
    cast(null as {{ type }})
{%- endmacro %}
