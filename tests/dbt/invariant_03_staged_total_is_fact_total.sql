-- Per source system and currency, the staged amounts and the amounts in fct_sales are the same money.
{{ config(tags=['invariant'], meta={'invariant': 3}) }}
with

-- of two documents for one payment the latest counts, as in int_transactions_unified
mongodb_latest as (
    select
        currency_code,
        amount,
        row_number() over (partition by transaction_id order by updated_at desc, document_id desc) as recency
    from {{ ref('stg_mongodb__transactions') }}
),

both_sides as (
    select
        'oltp' as source_system,
        upper(currency_code) as currency_code,
        amount as staged_amount,
        0 as fact_amount,
        1 as staged_rows,
        0 as fact_rows
    from {{ ref('stg_oltp__transaction') }}
    union all
    select
        'mongodb' as source_system,
        upper(currency_code) as currency_code,
        amount as staged_amount,
        0 as fact_amount,
        1 as staged_rows,
        0 as fact_rows
    from mongodb_latest
    where recency = 1
    union all
    select
        source_system,
        upper(currency_code) as currency_code,
        0 as staged_amount,
        amount as fact_amount,
        0 as staged_rows,
        1 as fact_rows
    from {{ ref('fct_sales') }}
)

select
    source_system,
    currency_code,
    sum(staged_amount) as staged_total,
    sum(fact_amount) as fact_total,
    sum(staged_rows) as staged_rows,
    sum(fact_rows) as fact_rows
from both_sides
group by source_system, currency_code
having
    coalesce(sum(staged_amount), 0) != coalesce(sum(fact_amount), 0)
    or sum(staged_rows) != sum(fact_rows)
