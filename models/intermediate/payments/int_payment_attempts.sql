-- One row per attempt at a payment: what was asked, what 3-D Secure and the issuer answered, and how it ended.
{{ config(
    materialized='incremental',
    incremental_strategy='append',
    pre_hook="{{ remove_stale(['int_transactions_unified', 'int_orphan_payments']) }}",
) }}
{%- set steps = {
    'attempted_at': 'payment.attempted',
    'authenticated_at': 'payment.authenticated',
    'authorized_at': 'payment.authorized',
    'declined_at': 'payment.declined',
    'blocked_at': 'payment.blocked',
} %}
with

known_payments as (
    select
        transaction_key,
        row_version
    from {{ ref('int_transactions_unified') }}
),

orphan_payments as (
    select
        transaction_key,
        row_version
    from {{ ref('int_orphan_payments') }}
),

all_payments as (
    select
        transaction_key,
        row_version,
        false as is_orphan
    from known_payments

    union all

    select
        transaction_key,
        row_version,
        true as is_orphan
    from orphan_payments
),

payments as (
    select
        transaction_key,
        row_version,
        is_orphan
    from all_payments
    {{ only_changed() }}
),

events as (
    select
        event_id,
        transaction_key,
        source_system,
        transaction_id,
        attempt_id,
        event_type,
        currency_code,
        reason,
        decline_code,
        three_ds_outcome,
        three_ds_eci,
        three_ds_exemption,
        fraud_rule,
        review_result,
        amount,
        attempt_number,
        occurred_at,
        loaded_at
    from {{ ref('int_payment_events_deduped') }}
    where event_type in ({{ quoted(steps.values()) }}){{ and_payment_in('payments') }}
),

-- an event that forgot which attempt it belongs to belongs to the one of its number; without a number it is its own
identified as (
    select
        *,
        coalesce(
            attempt_id,
            transaction_id || '-' || cast(attempt_number as {{ type_text() }}),
            event_id
        ) as identified_attempt_id
    from events
),

-- an attempt is answered once. Should it carry two answers, the greater word stands: every run must say the same
attempts as (
    select
        transaction_key,
        identified_attempt_id as attempt_id,
        min(source_system) as source_system,
        min(transaction_id) as transaction_id,
        max(case when event_type = 'payment.attempted' then currency_code end) as attempted_currency_code,
        max(currency_code) as any_currency_code,
        max(case when event_type = 'payment.attempted' then amount end) as attempted_amount,
        max(amount) as any_amount,
        max(case when event_type = 'payment.declined' then decline_code end) as decline_code,
        max(case when event_type = 'payment.declined' then reason end) as decline_reason,
        max(case when event_type = 'payment.blocked' then reason end) as block_reason,
        max(three_ds_outcome) as three_ds_outcome,
        max(three_ds_eci) as three_ds_eci,
        max(three_ds_exemption) as sca_exemption,
        max(fraud_rule) as fraud_rule,
        max(review_result) as review_result,
        max(attempt_number) as attempt_number,
        {%- for column, event_type in steps.items() %}
        min(case when event_type = '{{ event_type }}' then occurred_at end) as {{ column }},
        {%- endfor %}
        min(occurred_at) as first_event_at,
        max(occurred_at) as last_event_at,
        max(loaded_at) as loaded_at
    from identified
    group by transaction_key, identified_attempt_id
),

-- the issuer's yes outranks everything: what a review stopped afterwards was authorized first, and counts there.
-- An attempt without any answer was left before the issuer was asked, most often in 3-D Secure
judged as (
    select
        *,
        case
            when authorized_at is not null then 'authorized'
            when blocked_at is not null then 'blocked'
            when declined_at is not null then 'declined'
            else 'incomplete'
        end as outcome,
        row_number() over (
            partition by transaction_key
            order by
                coalesce(attempted_at, first_event_at) desc,
                coalesce(attempt_number, 0) desc,
                attempt_id desc
        ) as position_from_last
    from attempts
),

-- retries of one payment are one wish to pay: authorized if any of them was, and so on down
retry_groups as (
    select
        transaction_key,
        count(*) as attempts_in_group,
        max(case when outcome = 'authorized' then 1 else 0 end) as has_authorized,
        max(case when outcome = 'blocked' then 1 else 0 end) as has_blocked,
        max(case when outcome = 'declined' then 1 else 0 end) as has_declined
    from judged
    group by transaction_key
),

final as (
    select
        {{ hash_key(['judged.transaction_key', 'judged.attempt_id']) }} as attempt_key,
        judged.transaction_key,
        payments.row_version,
        judged.transaction_key as retry_group_key,
        judged.source_system,
        judged.transaction_id,
        judged.attempt_id,
        judged.outcome,
        case
            when retry_groups.has_authorized = 1 then 'authorized'
            when retry_groups.has_blocked = 1 then 'blocked'
            when retry_groups.has_declined = 1 then 'declined'
            else 'incomplete'
        end as retry_group_outcome,
        coalesce(judged.attempted_currency_code, judged.any_currency_code) as currency_code,
        judged.decline_code,
        judged.decline_reason,
        judged.block_reason,
        judged.three_ds_outcome,
        judged.three_ds_eci,
        judged.sca_exemption,
        judged.fraud_rule,
        judged.review_result,
        coalesce(judged.attempted_amount, judged.any_amount) as amount,
        cast(
            coalesce(
                judged.attempt_number,
                retry_groups.attempts_in_group - judged.position_from_last + 1
            ) as integer
        ) as attempt_number,
        cast(retry_groups.attempts_in_group as integer) as attempts_in_group,
        judged.position_from_last = 1 as is_final,
        judged.authenticated_at is not null as is_authenticated,
        judged.authorized_at is not null and judged.blocked_at is not null as is_blocked_after_authorization,
        payments.is_orphan,
        coalesce(judged.attempted_at, judged.first_event_at) as attempted_at,
        judged.authenticated_at,
        judged.authorized_at,
        judged.declined_at,
        judged.blocked_at,
        judged.last_event_at,
        judged.loaded_at
    from judged
    inner join retry_groups on judged.transaction_key = retry_groups.transaction_key
    inner join payments on judged.transaction_key = payments.transaction_key
)

select * from final
