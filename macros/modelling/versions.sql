{#-
  Landed versions of a table, each once, with the time from which it was true.

  `relation` is a CTE of landed rows with `row_hash`, `updated_at`, `deleted_at`, `loaded_at`, `load_id`. A crash
  between landing and marking lands a version twice: the first landing is kept. A row that is deleted and inserted
  again with its old content is a new version, not a second landing of the old one, hence the `incarnation`: how
  many deletions of this key had landed before.

  `effective_at` is the source's own `updated_at`; a deletion counts from when it was found, and what was inserted
  again counts from that deletion on at the earliest.
-#}
{% macro landed_versions(relation, key, columns) -%}
    select
        {%- for column in columns %}
        {{ column }},
        {%- endfor %}
        row_hash,
        incarnation,
        deleted_at is not null as is_deleted,
        case
            when deleted_at is not null then deleted_at
            when last_deletion_at > updated_at then last_deletion_at
            else updated_at
        end as effective_at,
        updated_at,
        deleted_at,
        load_id,
        loaded_at
    from (
        select
            {%- for column in columns %}
            {{ column }},
            {%- endfor %}
            row_hash,
            updated_at,
            deleted_at,
            load_id,
            loaded_at,
            incarnation,
            last_deletion_at,
            row_number() over (
                partition by {{ key }}, row_hash, incarnation, deleted_at
                order by loaded_at, load_id
            ) as landing_number
        from (
            select
                {%- for column in columns %}
                {{ column }},
                {%- endfor %}
                row_hash,
                updated_at,
                deleted_at,
                load_id,
                loaded_at,
                count(deleted_at) over (
                    partition by {{ key }}
                    order by loaded_at, load_id, row_hash
                    rows between unbounded preceding and 1 preceding
                ) as incarnation,
                max(deleted_at) over (
                    partition by {{ key }}
                    order by loaded_at, load_id, row_hash
                    rows between unbounded preceding and 1 preceding
                ) as last_deletion_at
            from {{ relation }}
        ) as sequenced
    ) as numbered
    where landing_number = 1
{%- endmacro %}


{#-
  Versions as intervals: [valid_from, valid_to), without gap or overlap, the first from 1900-01-01, the last to
  9999-12-31.

  `relation` is a CTE with `effective_at`, `loaded_at`, `load_id`, `row_hash`, `is_deleted` and the `attributes`.
  Order is the source's, not the landing's: a version that lands late slots in where it belongs. Of two versions
  effective at the same instant the one landed last wins. Neighbours that differ in no attribute are one version.
-#}
{% macro version_intervals(relation, key, attributes) -%}
    select
        {{ key }},
        row_number() over (partition by {{ key }} order by effective_at) as version_number,
        case
            when row_number() over (partition by {{ key }} order by effective_at) = 1 then {{ utc('1900-01-01') }}
            else effective_at
        end as valid_from,
        coalesce(
            lead(effective_at) over (partition by {{ key }} order by effective_at),
            {{ utc('9999-12-31') }}
        ) as valid_to,
        lead(effective_at) over (partition by {{ key }} order by effective_at) is null as is_current,
        is_deleted,
        {%- for attribute in attributes %}
        {{ attribute }},
        {%- endfor %}
        updated_at,
        loaded_at
    from (
        select
            *,
            lag(attributes_hash) over (partition by {{ key }} order by effective_at) as previous_attributes_hash
        from (
            select
                *,
                {{ hash_key(attributes + ['is_deleted']) }} as attributes_hash,
                row_number() over (
                    partition by {{ key }}, effective_at
                    order by loaded_at desc, load_id desc, row_hash desc
                ) as recency
            from {{ relation }}
        ) as ranked
        where recency = 1
    ) as compared
    where previous_attributes_hash is null or previous_attributes_hash != attributes_hash
{%- endmacro %}
