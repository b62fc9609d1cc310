-- Every fact's version key names a version of the member its durable key names, valid when the payment was made.
{{ config(tags=['invariant'], meta={'invariant': 7}) }}
{%- set no_member = quoted([var('unknown_key'), var('not_applicable_key'), var('erased_key')]) %}
{%- set checks = [
    ('fct_sales', 'customer'),
    ('fct_sales', 'merchant'),
    ('fct_sales', 'product'),
    ('fct_fraud', 'customer'),
    ('fct_fraud', 'merchant'),
    ('fct_refund', 'customer'),
    ('fct_refund', 'merchant'),
    ('fct_refund', 'product'),
    ('fct_dispute_event', 'customer'),
    ('fct_dispute_event', 'merchant'),
    ('fct_dispute_event', 'product'),
    ('fct_balance_movement', 'merchant'),
    ('fct_settlement', 'merchant'),
] %}
{%- for fact, entity in checks %}
select
    '{{ fact }}.{{ entity }}' as fact_key,
    facts.transaction_key
from {{ ref(fact) }} as facts
left join {{ ref('dim_' ~ entity ~ '_history') }} as versions
    on facts.{{ entity }}_version_key = versions.{{ entity }}_version_key
where
    facts.{{ entity }}_key not in ({{ no_member }})
    and (
        versions.{{ entity }}_key is null
        or facts.{{ entity }}_key != versions.{{ entity }}_key
        or facts.event_at_utc < versions.valid_from
        or facts.event_at_utc >= versions.valid_to
    )
{{ 'union all' if not loop.last }}
{%- endfor %}
