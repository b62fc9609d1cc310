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
        payments.transaction_key,
        payment_issues.issue
    from {{ ref('int_payment_issues') }} as payment_issues
    inner join {{ ref('int_transactions_unified') }} as payments
        on
            payment_issues.source_system = payments.source_system
            and payment_issues.natural_id = payments.transaction_id
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
