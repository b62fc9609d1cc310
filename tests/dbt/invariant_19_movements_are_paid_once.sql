-- A movement belongs to at most one payout that stayed paid.
{{ config(tags=['invariant'], meta={'invariant': 19}) }}
select movement_id
from {{ ref('fct_settlement') }}
where is_successful
group by movement_id
having count(*) > 1
