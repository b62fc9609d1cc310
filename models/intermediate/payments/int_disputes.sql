-- One row per dispute: its whole history, from the inquiry that moves no money to the outcome.
with

events as (
    select
        event_id,
        transaction_key,
        transaction_id,
        source_system,
        coalesce(dispute_id, event_id) as dispute_id,
        movement_id,
        event_type,
        currency_code,
        reason,
        dispute_reason_code,
        network,
        abs(amount) as amount,
        is_fraud,
        occurred_at,
        loaded_at
    from {{ ref('int_payment_events_deduped') }}
    where event_type in (
        'dispute.inquiry', 'dispute.opened', 'dispute.evidence_submitted', 'dispute.won', 'dispute.lost'
    )
),

transactions as (
    select
        transaction_key,
        merchant_id,
        merchant_time_zone,
        currency_code,
        business_date,
        event_at_utc,
        loaded_at
    from {{ ref('int_transactions_unified') }}
),

currencies as (
    select
        currency_code,
        exponent as currency_exponent
    from {{ ref('currency_exponents') }}
),

-- a step told twice under two event ids is one step: the first telling counts
ranked as (
    select
        *,
        row_number() over (
            partition by source_system, transaction_key, dispute_id, event_type
            order by occurred_at, event_id
        ) as telling
    from events
),

{%- set steps = {
    'inquiry': 'dispute.inquiry',
    'opened': 'dispute.opened',
    'evidence': 'dispute.evidence_submitted',
    'won': 'dispute.won',
    'lost': 'dispute.lost',
} %}
{%- set attributes = ['currency_code', 'reason', 'dispute_reason_code', 'network'] %}

gathered as (
    select
        source_system,
        transaction_key,
        dispute_id,
        max(transaction_id) as transaction_id,
        {%- for step, event_type in steps.items() %}
        {%- set first = "event_type = '" ~ event_type ~ "' and telling = 1" %}
        max(case when {{ first }} then event_id end) as {{ step }}_event_id,
        max(case when {{ first }} then amount end) as {{ step }}_amount,
        max(case when {{ first }} then occurred_at end) as {{ step }}_at,
        {%- endfor %}
        {%- for attribute in attributes %}
        -- the opening speaks for the dispute, what it leaves out the other steps say
        coalesce(
            max(case when event_type = 'dispute.opened' and telling = 1 then {{ attribute }} end),
            max({{ attribute }})
        ) as {{ attribute }},
        {%- endfor %}
        max(case when event_type = 'dispute.opened' and telling = 1 then movement_id end) as opened_movement_id,
        max(case when event_type = 'dispute.won' and telling = 1 then movement_id end) as won_movement_id,
        max(case when is_fraud then 1 else 0 end) = 1 as is_fraud,
        cast(count(*) as integer) as events_count,
        min(occurred_at) as first_event_at,
        max(occurred_at) as last_event_at,
        max(loaded_at) as loaded_at
    from ranked
    group by source_system, transaction_key, dispute_id
),

placed as (
    select
        gathered.*,
        transactions.merchant_id,
        transactions.currency_code as payment_currency_code,
        transactions.business_date as charge_date,
        transactions.event_at_utc as payment_at_utc,
        transactions.transaction_key is null as is_orphan,
        coalesce(gathered.currency_code != transactions.currency_code, false) as has_currency_mismatch,
        -- an outcome tells that there was a dispute, also while its opening is still on its way
        coalesce(gathered.opened_at, gathered.evidence_at, gathered.won_at, gathered.lost_at) as disputed_at,
        coalesce(gathered.opened_amount, gathered.won_amount, gathered.lost_amount, gathered.evidence_amount)
            as dispute_amount,
        coalesce(transactions.merchant_time_zone, 'UTC') as merchant_time_zone,
        greatest(gathered.loaded_at, coalesce(transactions.loaded_at, gathered.loaded_at)) as row_loaded_at
    from gathered
    left join transactions on gathered.transaction_key = transactions.transaction_key
),

-- told both ways, the later outcome counts
judged as (
    select
        *,
        {{ local_date('disputed_at', 'merchant_time_zone') }} as dispute_date,
        coalesce(won_at is not null and (lost_at is null or won_at >= lost_at), false) as is_won,
        coalesce(lost_at is not null and (won_at is null or lost_at > won_at), false) as is_lost
    from placed
),

final as (
    select
        {{ hash_key(['judged.source_system', 'judged.transaction_id', 'judged.dispute_id']) }} as dispute_key,
        judged.transaction_key,
        judged.dispute_id,
        judged.inquiry_event_id,
        judged.opened_event_id,
        judged.evidence_event_id,
        judged.won_event_id,
        judged.lost_event_id,
        judged.opened_movement_id,
        judged.won_movement_id,
        judged.source_system,
        judged.transaction_id,
        judged.merchant_id,
        case
            when judged.is_won then 'won'
            when judged.is_lost then 'lost'
            when judged.disputed_at is null then 'inquiry'
            when judged.evidence_at is not null then 'under_review'
            else 'needs_response'
        end as dispute_status,
        judged.reason,
        judged.dispute_reason_code,
        judged.network,
        judged.currency_code,
        judged.payment_currency_code,
        judged.events_count,
        cast(currencies.currency_exponent as smallint) as currency_exponent,
        {{ days_between('judged.charge_date', 'judged.dispute_date') }} as days_to_dispute,
        cast(judged.inquiry_amount as {{ type_money() }}) as inquiry_amount,
        cast(judged.dispute_amount as {{ type_money() }}) as dispute_amount,
        {{ to_minor_units('judged.dispute_amount', 'currencies.currency_exponent') | indent(8) }}
            as dispute_amount_minor,
        cast(case when judged.is_won then coalesce(judged.won_amount, judged.opened_amount) end as {{ type_money() }})
            as won_amount,
        -- what a win brought back, also when a later loss took the outcome over
        cast(
            case when judged.won_at is not null then coalesce(judged.won_amount, judged.opened_amount) end
            as {{ type_money() }}
        ) as returned_amount,
        cast(
            case when judged.is_lost then coalesce(judged.lost_amount, judged.opened_amount) end as {{ type_money() }}
        ) as lost_amount,
        judged.is_fraud,
        judged.disputed_at is null as is_inquiry_only,
        judged.inquiry_at is not null as had_inquiry,
        judged.is_won,
        judged.is_lost,
        judged.is_orphan,
        judged.has_currency_mismatch,
        judged.won_at is not null and judged.lost_at is not null as has_conflicting_outcomes,
        judged.disputed_at is not null and judged.opened_at is null as has_missing_opening,
        judged.charge_date,
        judged.dispute_date,
        judged.payment_at_utc,
        judged.inquiry_at,
        judged.opened_at,
        judged.evidence_at,
        judged.won_at,
        judged.lost_at,
        judged.disputed_at,
        judged.first_event_at,
        judged.last_event_at,
        judged.row_loaded_at as loaded_at
    from judged
    left join currencies on judged.currency_code = currencies.currency_code
)

select * from final
