-- One row per refund: whether it succeeded, and what of the capture was left before it.
with

events as (
    select
        event_id,
        transaction_key,
        transaction_id,
        source_system,
        coalesce(refund_id, event_id) as refund_id,
        event_type,
        currency_code,
        reason,
        actor,
        abs(amount) as amount,
        has_invalid_amount,
        occurred_at,
        loaded_at
    from {{ ref('int_payment_events_deduped') }}
    where event_type in ('refund.succeeded', 'refund.failed')
),

capture_events as (
    select
        transaction_key,
        currency_code,
        abs(amount) as amount,
        loaded_at
    from {{ ref('int_payment_events_deduped') }}
    where event_type = 'payment.captured'
),

transactions as (
    select
        transaction_key,
        merchant_id,
        merchant_time_zone,
        currency_code,
        currency_exponent,
        amount,
        tax,
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

-- the same outcome told twice under two event ids is one refund: the first telling counts
ranked as (
    select
        *,
        row_number() over (
            partition by source_system, transaction_key, refund_id, event_type
            order by occurred_at, event_id
        ) as telling
    from events
),

told as (
    select
        source_system,
        transaction_key,
        refund_id,
        max(transaction_id) as transaction_id,
        max(case when event_type = 'refund.succeeded' and telling = 1 then event_id end) as succeeded_event_id,
        max(case when event_type = 'refund.failed' and telling = 1 then event_id end) as failed_event_id,
        min(case when event_type = 'refund.succeeded' then occurred_at end) as succeeded_at,
        min(case when event_type = 'refund.failed' then occurred_at end) as failed_at,
        cast(count(*) as integer) as events_count,
        max(occurred_at) as last_event_at,
        max(loaded_at) as loaded_at
    from ranked
    group by source_system, transaction_key, refund_id
),

-- a refund that ever succeeded did: its failure, if one was told too, is flagged and moves nothing
decided as (
    select
        told.source_system,
        told.transaction_key,
        told.transaction_id,
        told.refund_id,
        ranked.event_id,
        ranked.currency_code,
        ranked.reason,
        ranked.actor,
        ranked.amount,
        ranked.has_invalid_amount,
        told.events_count,
        told.succeeded_event_id is not null as is_succeeded,
        told.succeeded_event_id is not null and told.failed_event_id is not null as has_conflicting_outcomes,
        ranked.occurred_at as event_at_utc,
        told.succeeded_at,
        told.failed_at,
        told.last_event_at,
        told.loaded_at
    from told
    inner join ranked on coalesce(told.succeeded_event_id, told.failed_event_id) = ranked.event_id
),

refunded_payments as (
    select distinct transaction_key
    from decided
),

-- in the payment's own currency; without a capture event the payment's gross amount stands in
captures as (
    select
        refunded_payments.transaction_key,
        cast(
            sum(case when capture_events.currency_code = transactions.currency_code then capture_events.amount end)
            as {{ type_money() }}
        ) as captured_amount,
        max(capture_events.loaded_at) as loaded_at
    from refunded_payments
    inner join transactions on refunded_payments.transaction_key = transactions.transaction_key
    inner join capture_events on refunded_payments.transaction_key = capture_events.transaction_key
    group by refunded_payments.transaction_key
),

placed as (
    select
        decided.*,
        transactions.merchant_id,
        coalesce(transactions.merchant_time_zone, 'UTC') as merchant_time_zone,
        transactions.currency_code as payment_currency_code,
        coalesce(
            captures.captured_amount,
            {% if var('amount_includes_tax') -%}
            transactions.amount
            {%- else -%}
            cast(transactions.amount + coalesce(transactions.tax, 0) as {{ type_money() }})
            {%- endif %}
        ) as captured_amount,
        transactions.business_date as payment_business_date,
        transactions.event_at_utc as payment_at_utc,
        transactions.transaction_key is null as is_orphan,
        coalesce(decided.currency_code != transactions.currency_code, false) as has_currency_mismatch,
        greatest(
            decided.loaded_at,
            coalesce(transactions.loaded_at, decided.loaded_at),
            coalesce(captures.loaded_at, decided.loaded_at)
        ) as row_loaded_at
    from decided
    left join transactions on decided.transaction_key = transactions.transaction_key
    left join captures on decided.transaction_key = captures.transaction_key
),

-- only what succeeded in the payment's currency has used up the capture
counted as (
    select
        *,
        case when is_succeeded and not has_currency_mismatch then amount else 0 end as counted_amount
    from placed
),

accumulated as (
    select
        *,
        coalesce(
            sum(counted_amount) over (
                partition by source_system, transaction_key
                order by event_at_utc, refund_id
                rows between unbounded preceding and 1 preceding
            ),
            0
        ) as refunded_before_amount,
        row_number() over (
            partition by source_system, transaction_key
            order by event_at_utc, refund_id
        ) as refund_number,
        max(row_loaded_at) over (partition by source_system, transaction_key) as payment_loaded_at
    from counted
),

final as (
    select
        {{ hash_key(['accumulated.source_system', 'accumulated.transaction_id', 'accumulated.refund_id']) }}
            as refund_key,
        accumulated.transaction_key,
        accumulated.refund_id,
        accumulated.event_id,
        accumulated.source_system,
        accumulated.transaction_id,
        accumulated.merchant_id,
        case when accumulated.is_succeeded then 'succeeded' else 'failed' end as refund_status,
        accumulated.reason,
        accumulated.actor,
        accumulated.currency_code,
        accumulated.payment_currency_code,
        cast(accumulated.refund_number as integer) as refund_number,
        accumulated.events_count,
        cast(currencies.currency_exponent as smallint) as currency_exponent,
        cast(accumulated.amount as {{ type_money() }}) as amount,
        {{ to_minor_units('accumulated.amount', 'currencies.currency_exponent') | indent(8) }} as amount_minor,
        accumulated.captured_amount,
        cast(accumulated.refunded_before_amount as {{ type_money() }}) as refunded_before_amount,
        cast(accumulated.captured_amount - accumulated.refunded_before_amount as {{ type_money() }})
            as refundable_before_amount,
        accumulated.is_succeeded,
        coalesce(
            accumulated.is_succeeded
            and not accumulated.has_currency_mismatch
            and accumulated.amount >= accumulated.captured_amount,
            false
        ) as is_full,
        coalesce(
            accumulated.is_succeeded
            and not accumulated.has_currency_mismatch
            and accumulated.refunded_before_amount < accumulated.captured_amount
            and accumulated.refunded_before_amount + accumulated.amount >= accumulated.captured_amount,
            false
        ) as is_completing,
        coalesce(
            accumulated.is_succeeded
            and not accumulated.has_currency_mismatch
            and accumulated.refunded_before_amount + accumulated.amount > accumulated.captured_amount,
            false
        ) as has_excess,
        accumulated.has_currency_mismatch,
        accumulated.has_conflicting_outcomes,
        accumulated.has_invalid_amount,
        accumulated.is_orphan,
        {{ local_date('accumulated.event_at_utc', 'accumulated.merchant_time_zone') }} as business_date,
        accumulated.payment_business_date,
        accumulated.event_at_utc,
        accumulated.payment_at_utc,
        accumulated.succeeded_at,
        accumulated.failed_at,
        accumulated.last_event_at,
        accumulated.payment_loaded_at as loaded_at
    from accumulated
    left join currencies on accumulated.currency_code = currencies.currency_code
)

select * from final
