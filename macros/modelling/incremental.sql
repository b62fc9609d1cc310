{#-
  Incremental models, one way for all of them.

  A row of an incremental model carries `row_version`: a hash of its upstream's key and of when everything it stands
  on landed. A run deletes the rows whose version its upstream no longer knows and adds those it does not have yet.
  Nothing depends on clocks, watermarks or the order of loads: whatever arrives, however late, changes the version of
  exactly the rows it concerns, and a run that died half-way is completed by the next.

      config(materialized='incremental', incremental_strategy='append', pre_hook="{{ '{{' }} remove_stale('upstream') {{ '}}' }}")
      … from ref('upstream') {{ '{{' }} only_changed() {{ '}}' }}

  Changes of code, seeds or vars are not seen: they need `--full-refresh`, which `warehouse refresh` adds by itself.
-#}
{% macro only_changed() -%}
    {%- if is_incremental() -%}
    where row_version not in (select built.row_version from {{ this }} as built)
    {%- endif -%}
{%- endmacro %}

{#- `upstreams`: the model that says which versions there are, or a list of such models. -#}
{% macro remove_stale(upstreams) -%}
    {%- if is_incremental() -%}
    delete from {{ this }} where row_version not in (
        {%- for upstream in ([upstreams] if upstreams is string else upstreams) %}
        select upstream.row_version from {{ ref(upstream) }} as upstream
        {{ 'union all' if not loop.last }}
        {%- endfor %}
    )
    {%- endif -%}
{%- endmacro %}

{#- Rows whose member of a dimension nobody knew, or is gone: it may be known by now. -#}
{% macro remove_without_member(key, dimension) -%}
    {%- if is_incremental() -%}
    delete from {{ this }} where row_version in (
        select built.row_version from {{ this }} as built
        where
            built.{{ key }} = '{{ var("unknown_key") }}'
            or built.{{ key }} not in (select members.{{ key }} from {{ ref(dimension) }} as members)
    )
    {%- endif -%}
{%- endmacro %}

{#- Rows that were converted at what is not the rate of their day any more: rates land late, and are corrected. -#}
{% macro remove_with_other_rate() -%}
    {%- if is_incremental() -%}
    delete from {{ this }} where row_version in (
        select built.row_version
        from {{ this }} as built
        left join {{ ref('int_exchange_rates_filled') }} as rates
            on built.currency_code = rates.currency_code and built.business_date = rates.rate_date
        where
            built.reporting_rate_status != coalesce(rates.rate_status, 'missing')
            or built.reporting_rate != rates.rate_to_reporting
    )
    {%- endif -%}
{%- endmacro %}


{#- Goes on with a `where`: of the rows that many share, those of the payments in the CTE `changed`. -#}
{% macro and_payment_in(changed) -%}
    {{ return(' and transaction_key in (select transaction_key from ' ~ changed ~ ')' if is_incremental() else '') }}
{%- endmacro %}

{#-
  Staging of big tables, where each landed row is parsed once. Loads of one table are committed one after the other,
  so what is new is what landed after the newest row here; `and` goes on with the `where` of the source.
-#}
{% macro and_landed_since() -%}
    {{ return(
        " and _landed_at > (select coalesce(max(built.loaded_at), " ~ utc('1900-01-01') ~ ") from " ~ this ~ " as built)"
        if is_incremental() else ''
    ) }}
{%- endmacro %}

{#- The rows of a staging table that its source no longer has, or has as deleted. -#}
{% macro remove_vanished(source_name, table_name, source_key, key) -%}
    {%- if is_incremental() -%}
    delete from {{ this }}
    where {{ key }} not in (
        select landed.{{ source_key }} from {{ source(source_name, table_name) }} as landed
        where landed._deleted_at is null
    )
    {%- endif -%}
{%- endmacro %}


{#-
  dbt's own answer, unless the var `compile_as_incremental` gives it: so that both forms of a model can be compiled, and
  read, without a warehouse to ask.
-#}
{% macro is_incremental() -%}
    {%- set given = var('compile_as_incremental', none) -%}
    {{ return(dbt.is_incremental() if given is none else given) }}
{%- endmacro %}
