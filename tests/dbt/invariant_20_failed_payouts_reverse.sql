-- A payout that failed has left every account as it was: paid and booked back. Its movements are not paid by it, and a
-- payout that nobody announced has no legs at all.
{{ config(tags=['invariant'], meta={'invariant': 20}) }}
with

legs as (
    select
        payout_id,
        ledger_account,
        sum(amount) as amount,
        sum(case when entry_type = 'payout_reversal' then 1 else 0 end) as reversals
    from {{ ref('fct_balance_movement') }}
    where payout_id is not null
    group by payout_id, ledger_account
)

select
    payouts.payout_id,
    'the legs of a failed payout do not cancel out' as finding
from {{ ref('int_payouts') }} as payouts
inner join legs on payouts.payout_id = legs.payout_id
where
    payouts.failed_event_id is not null
    and (legs.amount != 0 or legs.reversals != 1)
union all
select
    payouts.payout_id,
    'a payout that stayed paid was booked back' as finding
from {{ ref('int_payouts') }} as payouts
inner join legs on payouts.payout_id = legs.payout_id
where
    payouts.failed_event_id is null
    and legs.reversals > 0
union all
select
    settlements.payout_id,
    'a failed payout counts as successful' as finding
from {{ ref('fct_settlement') }} as settlements
where
    settlements.payout_status = 'failed'
    and settlements.is_successful
