-- A payment is never refunded by more than was captured. Without a capture event the payment's own amount stands in.
{{ config(tags=['invariant'], meta={'invariant': 11}) }}
select
    milestones.transaction_key,
    milestones.currency_code
from {{ ref('int_transaction_milestones') }} as milestones
inner join {{ ref('fct_sales') }} as sales on milestones.transaction_key = sales.transaction_key
where milestones.refunded_amount > coalesce(milestones.captured_amount, sales.gross_amount)
