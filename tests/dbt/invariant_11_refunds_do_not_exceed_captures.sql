-- A payment is never refunded by more than was captured. Without a capture event the payment's own amount stands in.
-- A refund that a source made for more than was left is bad input: int_refunds flags it, ops_data_issues counts it, and
-- what is left to find here is an excess that nobody flagged.
{{ config(tags=['invariant'], meta={'invariant': 11}) }}
with

flagged as (
    select distinct transaction_key
    from {{ ref('int_refunds') }}
    where has_excess
)

select
    milestones.transaction_key,
    milestones.currency_code
from {{ ref('int_transaction_milestones') }} as milestones
inner join {{ ref('fct_sales') }} as sales on milestones.transaction_key = sales.transaction_key
left join flagged on milestones.transaction_key = flagged.transaction_key
where
    milestones.refunded_amount > coalesce(milestones.captured_amount, sales.gross_amount)
    and flagged.transaction_key is null
