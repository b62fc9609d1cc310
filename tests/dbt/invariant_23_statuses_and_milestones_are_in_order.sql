-- Statuses follow one another legally, and a payment's milestones come in their order.
{{ config(tags=['invariant'], meta={'invariant': 23}) }}
{%- set steps = [
    ('attempted_at', 'authorized_at'),
    ('authorized_at', 'captured_at'),
    ('captured_at', 'first_refund_at'),
    ('captured_at', 'dispute_opened_at'),
    ('dispute_opened_at', 'dispute_won_at'),
    ('dispute_opened_at', 'dispute_lost_at'),
] %}
select
    transaction_key,
    from_status || ' to ' || to_status as finding
from {{ ref('int_status_history') }}
where not is_legal_transition
{%- for earlier, later in steps %}
union all
select
    transaction_key,
    '{{ later }} before {{ earlier }}' as finding
from {{ ref('int_transaction_milestones') }}
where {{ later }} < {{ earlier }}
{%- endfor %}
