-- An inquiry is a question: no event of one has a signed amount, and the ledger has no leg for it. Neither do evidence
-- and a loss move anything: the money went when the dispute was opened.
{{ config(tags=['invariant'], meta={'invariant': 15}) }}
select
    dispute_event_key as row_key,
    event_type || ' has a signed amount' as finding
from {{ ref('fct_dispute_event') }}
where
    signed_amount != 0
    and (is_inquiry_only or event_type not in ('dispute.opened', 'dispute.won'))
union all
select
    legs.balance_movement_key as row_key,
    events.event_type || ' is in the ledger' as finding
from {{ ref('fct_balance_movement') }} as legs
inner join {{ ref('fct_dispute_event') }} as events on legs.entry_id = events.event_id
where
    events.is_inquiry_only
    or events.event_type not in ('dispute.opened', 'dispute.won')
