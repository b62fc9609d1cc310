-- One row per currency and day on which a rate was published, the base currency itself included.
{%- set reporting_currency = var('reporting_currency') %}
with

documents as (
    select
        document_id,
        base_currency_code,
        rates,
        rate_date,
        loaded_at
    from {{ ref('stg_mongodb__currency_exchange_rates') }}
    where rate_date is not null
),

quotes as (
    select
        documents.document_id,
        documents.base_currency_code,
        upper(documents.map_key) as currency_code,
        {{ try_to('documents.map_value', type_quote()) }} as units_per_base,
        documents.rate_date,
        documents.loaded_at
    from {{ json_map_rows('documents', 'rates') | indent(4) }}
),

-- the base is worth one of itself; publishers leave it out
with_base as (
    select
        document_id,
        base_currency_code,
        currency_code,
        units_per_base,
        rate_date,
        loaded_at
    from quotes
    where
        units_per_base > 0
        and currency_code != base_currency_code

    union all

    select
        document_id,
        base_currency_code,
        base_currency_code as currency_code,
        1 as units_per_base,
        rate_date,
        loaded_at
    from documents
),

-- two documents for one day: the one quoted against the reporting currency, then the one landed last
ranked as (
    select
        currency_code,
        rate_date,
        base_currency_code,
        document_id,
        units_per_base,
        loaded_at,
        max(case when currency_code = '{{ reporting_currency }}' then units_per_base end) over (
            partition by document_id
        ) as reporting_units_per_base,
        row_number() over (
            partition by currency_code, rate_date
            order by
                case when base_currency_code = '{{ reporting_currency }}' then 0 else 1 end,
                loaded_at desc,
                document_id desc
        ) as preference
    from with_base
),

final as (
    select
        currency_code,
        rate_date,
        base_currency_code,
        units_per_base,
        reporting_units_per_base,
        {{ divide_quotes('reporting_units_per_base', 'units_per_base') | indent(8) }} as rate_to_reporting,
        loaded_at
    from ranked
    where
        preference = 1
        and reporting_units_per_base is not null
)

select * from final
