-- What is in dispute is not more than was captured. A warning: schemes do let two disputes overlap.
{{ config(severity='warn', tags=['invariant'], meta={'invariant': 13}) }}
select
    milestones.transaction_key,
    milestones.currency_code
from {{ ref('int_transaction_milestones') }} as milestones
inner join {{ ref('fct_sales') }} as sales on milestones.transaction_key = sales.transaction_key
where milestones.disputed_amount > coalesce(milestones.captured_amount, sales.gross_amount)
