-- A payout takes from the merchant's balance what its movements brought there: ledger leg = −sum of movements, in minor
-- units. What the source announced otherwise is flagged with exactly that difference, and is rare: more than ten
-- payouts and one percent of them would be our mistake.
{{ config(tags=['invariant'], meta={'invariant': 18}) }}
{%- set tolerated_payouts = 10 %}
with

legs as (
    select
        payout_id,
        sum(amount_minor) as leg_minor
    from {{ ref('fct_balance_movement') }}
    where
        entry_type = 'payout'
        and ledger_account = 'merchant_balance'
    group by payout_id
),

movements as (
    select
        payout_id,
        sum(amount_minor) as movements_minor
    from {{ ref('fct_settlement') }}
    where not has_currency_mismatch
    group by payout_id
),

compared as (
    select
        reported.payout_id,
        reported.announced_amount_minor,
        reported.movements_amount_minor,
        reported.difference_minor,
        reported.has_difference,
        legs.leg_minor,
        coalesce(movements.movements_minor, 0) as movements_minor
    from {{ ref('rpt_payout_reconciliation') }} as reported
    left join legs on reported.payout_id = legs.payout_id
    left join movements on reported.payout_id = movements.payout_id
),

differing as (
    select
        sum(case when has_difference then 1 else 0 end) as differing_payouts,
        count(*) as payouts
    from compared
)

select
    payout_id,
    'ledger, movements and report disagree' as finding
from compared
where
    leg_minor != -announced_amount_minor
    or movements_minor != movements_amount_minor
    or difference_minor != announced_amount_minor - movements_minor
    or (leg_minor + movements_minor != 0 and not has_difference)
union all
select
    null as payout_id,
    'too many payouts differ from their movements' as finding
from differing
where
    differing_payouts > {{ tolerated_payouts }}
    and differing_payouts > 0.01 * payouts
