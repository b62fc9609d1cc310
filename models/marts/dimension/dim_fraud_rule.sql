-- One row per rule of the risk engine that ever fired, in a document's signals or on a block.
with

assessments as (
    select
        fraud_rule,
        assessment_type,
        assessed_at
    from {{ ref('int_fraud_assessments') }}
    where fraud_rule is not null
),

rules as (
    select
        fraud_rule,
        max(case when assessment_type = 'signal' then 1 else 0 end) = 1 as is_signal_rule,
        max(case when assessment_type = 'block' then 1 else 0 end) = 1 as is_block_rule,
        min(assessed_at) as first_fired_at
    from assessments
    group by fraud_rule
),

final as (
    select
        {{ member_key('fraud_rule') }} as fraud_rule_key,
        fraud_rule,
        replace(fraud_rule, '_', ' ') as fraud_rule_name,
        is_signal_rule,
        is_block_rule,
        first_fired_at
    from rules
    union all
    {{ default_members({
        'fraud_rule_key': 'key',
        'fraud_rule': 'label',
        'fraud_rule_name': 'label',
        'is_signal_rule': 'false',
        'is_block_rule': 'false',
        'first_fired_at': null_of(type_utc_timestamp()),
    }) | indent(4) }}
)

select * from final
