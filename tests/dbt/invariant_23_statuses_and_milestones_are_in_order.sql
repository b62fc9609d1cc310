-- Statuses follow one another legally and a payment's milestones come in their order, or int_payment_issues says that
-- they do not: what the stream got wrong is kept and counted, and is no reason to stop a build.
{{ config(tags=['invariant'], meta={'invariant': 23}) }}
with

findings as (
    select
        transaction_key,
        'illegal_status_transition' as issue
    from {{ ref('int_status_history') }}
    where not is_legal_transition
    {%- for earlier, later in milestone_order() %}
    union all
    select
        transaction_key,
        'milestones_out_of_order' as issue
    from {{ ref('int_transaction_milestones') }}
    where {{ later }} < {{ earlier }}
    {%- endfor %}
),

flagged as (
    select
        transactions.transaction_key,
        issues.issue
    from {{ ref('int_payment_issues') }} as issues
    inner join {{ ref('int_transactions_unified') }} as transactions
        on
            issues.source_system = transactions.source_system
            and issues.natural_id = transactions.transaction_id
)

select
    findings.transaction_key,
    findings.issue
from findings
left join flagged
    on
        findings.transaction_key = flagged.transaction_key
        and findings.issue = flagged.issue
where flagged.transaction_key is null
