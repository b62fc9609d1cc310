-- A payment is never captured for more than was authorized, where the stream tells both.
{{ config(tags=['invariant'], meta={'invariant': 12}) }}
select
    transaction_key,
    currency_code
from {{ ref('int_transaction_milestones') }}
where captured_amount > authorized_amount
