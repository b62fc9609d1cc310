-- A dispute that was won has given back exactly what it took, in the facts and in the ledger. Fees stand apart, and a
-- win whose opening is not known yet has nothing to compare with (ops_data_issues counts it).
{{ config(tags=['invariant'], meta={'invariant': 14}) }}
select
    dispute_key,
    'fct_dispute_event does not net to zero' as finding
from {{ ref('fct_dispute_event') }}
where is_dispute_won
group by dispute_key
having
    sum(signed_amount) != 0
    and sum(case when event_type = 'dispute.opened' and signed_amount is not null then 1 else 0 end) > 0
union all
select
    disputes.dispute_key,
    'the merchant balance does not net to zero' as finding
from {{ ref('int_disputes') }} as disputes
inner join {{ ref('fct_balance_movement') }} as legs
    on
        disputes.dispute_id = legs.dispute_id
        and disputes.source_system = legs.source_system
        and coalesce(disputes.transaction_id, '') = coalesce(legs.transaction_id, '')
where
    disputes.is_won
    and disputes.opened_event_id is not null
    and legs.ledger_account = 'merchant_balance'
group by disputes.dispute_key
having sum(legs.amount) != 0
