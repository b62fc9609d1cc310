-- The legs of every ledger entry sum to zero per currency, in money, in minor units and in reporting currency, and an
-- entry has at least two of them.
{{ config(tags=['invariant'], meta={'invariant': 16}) }}
select
    entry_id,
    currency_code
from {{ ref('fct_balance_movement') }}
group by entry_id, currency_code
having
    sum(amount) != 0
    or coalesce(sum(amount_minor), 0) != 0
    or coalesce(sum(amount_reporting), 0) != 0
    or count(*) < 2
