-- One row per payment and assessment: a score, a rule that fired, or what a reviewer said. No amount stands here.
{{ config(
    materialized='incremental',
    incremental_strategy='append',
    pre_hook="{{ remove_stale('int_transactions_unified') }}",
) }}
{%- set and_new_document, and_new = (
    ' and transaction_id not in (select assessed.document_transaction_id from assessed)',
    ' and transaction_key not in (select assessed.transaction_key from assessed)',
) if is_incremental() else ('', '') %}
with

transactions as (
    select
        transaction_key,
        row_version
    from {{ ref('int_transactions_unified') }}
),

{% if is_incremental() -%}
-- most payments have no assessment: those whose assessments are here still are the ones to leave alone
assessed as (
    select
        transaction_key,
        case when source_system = 'mongodb' then transaction_id else '' end as document_transaction_id
    from {{ this }}
),

{% endif -%}
documents as (
    select
        document_id,
        transaction_id,
        signals,
        fraud_score,
        coalesce(created_at, updated_at) as created_at,
        loaded_at,
        -- of two documents with one transaction id the latest speaks, as in int_transactions_unified
        row_number() over (
            partition by transaction_id
            order by updated_at desc, document_id desc
        ) as recency
    from {{ ref('stg_mongodb__transactions') }}
    where transaction_id is not null{{ and_new_document }}
),

events as (
    select
        event_id,
        transaction_key,
        source_system,
        transaction_id,
        event_type,
        fraud_rule,
        review_result,
        occurred_at,
        loaded_at
    from {{ ref('int_payment_events_deduped') }}
    where transaction_key is not null and (event_type = 'payment.blocked' or review_result is not null){{ and_new }}
),

latest_documents as (
    select
        {{ hash_key(["'mongodb'", 'transaction_id']) }} as transaction_key,
        transaction_id,
        signals,
        fraud_score,
        created_at,
        loaded_at
    from documents
    where recency = 1
),

signal_rows as (
    select
        transaction_key,
        transaction_id,
        item_rule as fraud_rule,
        {{ try_to('item_weight', 'decimal(9, 6)') }} as rule_weight,
        created_at,
        loaded_at
    from {{ json_object_rows('latest_documents', 'signals', ['rule', 'weight']) | indent(4) }}
    where item_rule is not null
),

-- the engine scores while the payment is made; the document does not say when, so its creation stands for it
assessments as (
    select
        transaction_key,
        'mongodb' as source_system,
        transaction_id,
        'score' as assessment_type,
        'score' as assessment_id,
        cast(null as {{ type_text() }}) as fraud_rule,
        cast(null as {{ type_text() }}) as result,
        fraud_score as score,
        cast(null as decimal(9, 6)) as rule_weight,
        created_at as assessed_at,
        loaded_at
    from latest_documents
    where fraud_score is not null

    union all

    -- a rule named twice in one document fired once, with the greater weight
    select
        transaction_key,
        'mongodb' as source_system,
        min(transaction_id) as transaction_id,
        'signal' as assessment_type,
        fraud_rule as assessment_id,
        fraud_rule,
        cast(null as {{ type_text() }}) as result,
        cast(null as decimal(9, 6)) as score,
        max(rule_weight) as rule_weight,
        min(created_at) as assessed_at,
        max(loaded_at) as loaded_at
    from signal_rows
    group by transaction_key, fraud_rule

    union all

    select
        transaction_key,
        source_system,
        transaction_id,
        'block' as assessment_type,
        event_id as assessment_id,
        fraud_rule,
        'blocked' as result,
        cast(null as decimal(9, 6)) as score,
        cast(null as decimal(9, 6)) as rule_weight,
        occurred_at as assessed_at,
        loaded_at
    from events
    where event_type = 'payment.blocked'

    union all

    select
        transaction_key,
        source_system,
        transaction_id,
        'review' as assessment_type,
        event_id as assessment_id,
        cast(null as {{ type_text() }}) as fraud_rule,
        review_result as result,
        cast(null as decimal(9, 6)) as score,
        cast(null as decimal(9, 6)) as rule_weight,
        occurred_at as assessed_at,
        loaded_at
    from events
    where review_result is not null
),

keyed as (
    select
        *,
        {{ hash_key(['transaction_key', 'assessment_type', 'assessment_id']) }} as assessment_key
    from assessments
),

-- a payment that no database knows has no version: what was said about it is told anew in every run
final as (
    select
        keyed.assessment_key,
        keyed.transaction_key,
        case
            when transactions.transaction_key is not null then transactions.row_version
            else {{ hash_key([
                'keyed.assessment_key',
                'keyed.fraud_rule',
                'keyed.result',
                utc_microseconds('keyed.assessed_at'),
                utc_microseconds('keyed.loaded_at'),
            ]) | indent(12) }}
        end as row_version,
        keyed.source_system,
        keyed.transaction_id,
        keyed.assessment_type,
        keyed.assessment_id,
        keyed.fraud_rule,
        keyed.result,
        keyed.score,
        keyed.rule_weight,
        keyed.assessed_at,
        keyed.loaded_at
    from keyed
    left join transactions on keyed.transaction_key = transactions.transaction_key
)

select * from final
