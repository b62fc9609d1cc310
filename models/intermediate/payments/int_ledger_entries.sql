-- One row per entry, account and currency: the double-entry ledger, credits positive, debits negative.
{{ config(
    materialized='incremental',
    incremental_strategy='append',
    pre_hook="{{ remove_stale(['int_transactions_unified', 'int_orphan_payments', 'int_payouts']) }}",
) }}
{#- what each kind of entry does to each account: the directions of one kind sum to zero -#}
{%- set directions = {
    'capture': {'card_receivable': -1, 'merchant_balance': 1},
    'fee': {'merchant_balance': -1, 'fee_revenue': 1},
    'refund': {'merchant_balance': -1, 'card_receivable': 1},
    'dispute_withdrawal': {'merchant_balance': -1, 'card_receivable': 1},
    'dispute_return': {'card_receivable': -1, 'merchant_balance': 1},
    'dispute_fee': {'merchant_balance': -1, 'fee_revenue': 1},
    'payout': {'merchant_balance': -1, 'bank': 1},
    'payout_reversal': {'bank': -1, 'merchant_balance': 1},
} %}
{#- an event that names no payment stands with the others that name none -#}
{%- set named_or_unknown = "coalesce(transaction_key, '" ~ var('unknown_key') ~ "')" -%}
{%- set and_is_changed =
    ' and ' ~ named_or_unknown ~ ' in (select payments.transaction_key from payments)' if is_incremental() else '' %}
with

known_payments as (
    select
        transaction_key,
        row_version,
        merchant_id,
        merchant_time_zone,
        currency_code,
        loaded_at
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
        merchant_id,
        merchant_time_zone,
        currency_code,
        false as is_orphan,
        loaded_at
    from known_payments

    union all

    select
        transaction_key,
        row_version,
        null as merchant_id,
        null as merchant_time_zone,
        null as currency_code,
        true as is_orphan,
        null as loaded_at
    from orphan_payments
),

payments as (
    select
        transaction_key,
        row_version,
        merchant_id,
        merchant_time_zone,
        currency_code,
        is_orphan,
        loaded_at
    from all_payments
    {{ only_changed() }}
),

-- authorizations, inquiries, evidence, lost disputes and failed refunds move nothing: they are not asked for
events as (
    select
        event_id,
        transaction_key,
        transaction_id,
        source_system,
        coalesce(movement_id, capture_id, refund_id, fee_id, event_id) as movement_id,
        case
            when event_type = 'payment.captured' then 'capture'
            when fee_type = 'dispute' then 'dispute_fee'
            else 'fee'
        end as entry_type,
        currency_code,
        -- a capture takes money whatever sign it is written with; a fee below zero is one that was given back
        case when event_type = 'payment.captured' then abs(amount) else amount end as amount,
        available_at,
        occurred_at,
        loaded_at
    from {{ ref('int_payment_events_deduped') }}
    where event_type in ('payment.captured', 'fee.charged'){{ and_is_changed }}
),

refunds as (
    select
        event_id,
        transaction_key,
        transaction_id,
        source_system,
        refund_id,
        currency_code,
        amount,
        event_at_utc,
        loaded_at
    from {{ ref('int_refunds') }}
    where is_succeeded{{ and_is_changed }}
),

disputes as (
    select
        opened_event_id,
        won_event_id,
        opened_movement_id,
        won_movement_id,
        transaction_key,
        transaction_id,
        source_system,
        dispute_id,
        currency_code,
        dispute_amount,
        returned_amount,
        opened_at,
        won_at,
        loaded_at
    from {{ ref('int_disputes') }}
    where (opened_event_id is not null or won_event_id is not null){{ and_is_changed }}
),

payouts as (
    select
        row_version,
        paid_event_id,
        failed_event_id,
        payout_id,
        merchant_id,
        source_system,
        currency_code,
        amount,
        paid_at,
        failed_at,
        loaded_at
    from {{ ref('int_payouts') }}
    {{ only_changed() }}
),

merchants as (
    select
        merchant_id,
        {{ known_time_zone('time_zone') }} as time_zone,
        valid_from,
        valid_to,
        loaded_at
    from {{ ref('int_merchant_versions') }}
),

currencies as (
    select
        currency_code,
        exponent as currency_exponent
    from {{ ref('currency_exponents') }}
),

entries as (
    select
        event_id as entry_id,
        cast(null as {{ type_text() }}) as payout_version,
        entry_type,
        movement_id,
        transaction_key,
        transaction_id,
        cast(null as {{ type_text() }}) as dispute_id,
        cast(null as {{ type_text() }}) as payout_id,
        cast(null as {{ type_text() }}) as merchant_id,
        source_system,
        currency_code,
        amount,
        available_at,
        occurred_at as event_at_utc,
        loaded_at
    from events

    union all

    select
        event_id as entry_id,
        null as payout_version,
        'refund' as entry_type,
        refund_id as movement_id,
        transaction_key,
        transaction_id,
        null as dispute_id,
        null as payout_id,
        null as merchant_id,
        source_system,
        currency_code,
        amount,
        null as available_at,
        event_at_utc,
        loaded_at
    from refunds

    union all

    select
        opened_event_id as entry_id,
        null as payout_version,
        'dispute_withdrawal' as entry_type,
        coalesce(opened_movement_id, dispute_id) as movement_id,
        transaction_key,
        transaction_id,
        dispute_id,
        null as payout_id,
        null as merchant_id,
        source_system,
        currency_code,
        dispute_amount as amount,
        null as available_at,
        opened_at as event_at_utc,
        loaded_at
    from disputes
    where opened_event_id is not null

    union all

    select
        won_event_id as entry_id,
        null as payout_version,
        'dispute_return' as entry_type,
        coalesce(won_movement_id, won_event_id) as movement_id,
        transaction_key,
        transaction_id,
        dispute_id,
        null as payout_id,
        null as merchant_id,
        source_system,
        currency_code,
        returned_amount as amount,
        null as available_at,
        won_at as event_at_utc,
        loaded_at
    from disputes
    where won_event_id is not null

    union all

    select
        paid_event_id as entry_id,
        row_version as payout_version,
        'payout' as entry_type,
        null as movement_id,
        null as transaction_key,
        null as transaction_id,
        null as dispute_id,
        payout_id,
        merchant_id,
        source_system,
        currency_code,
        amount,
        null as available_at,
        paid_at as event_at_utc,
        loaded_at
    from payouts
    where paid_event_id is not null

    union all

    select
        failed_event_id as entry_id,
        row_version as payout_version,
        'payout_reversal' as entry_type,
        null as movement_id,
        null as transaction_key,
        null as transaction_id,
        null as dispute_id,
        payout_id,
        merchant_id,
        source_system,
        currency_code,
        amount,
        null as available_at,
        failed_at as event_at_utc,
        loaded_at
    from payouts
    -- what was never paid out cannot come back
    where
        paid_event_id is not null
        and failed_event_id is not null
),

-- an amount that is no number, or money of no currency, cannot be booked: ops_data_issues counts it
bookable as (
    select
        entries.entry_id,
        coalesce(entries.payout_version, payments.row_version) as row_version,
        entries.entry_type,
        entries.movement_id,
        entries.transaction_key,
        entries.transaction_id,
        entries.dispute_id,
        entries.payout_id,
        coalesce(entries.merchant_id, payments.merchant_id) as merchant_id,
        entries.source_system,
        entries.currency_code,
        payments.merchant_time_zone,
        entries.amount,
        entries.payout_id is null and coalesce(payments.is_orphan, true) as is_orphan,
        coalesce(entries.currency_code != payments.currency_code, false) as has_currency_mismatch,
        entries.available_at,
        entries.event_at_utc,
        greatest(entries.loaded_at, coalesce(payments.loaded_at, entries.loaded_at)) as loaded_at
    from entries
    left join payments on coalesce(entries.transaction_key, '{{ var("unknown_key") }}') = payments.transaction_key
    where
        entries.amount is not null
        and entries.currency_code is not null
),

-- the day is the one in the shop when the money moved, not when it was sold
dated as (
    select
        bookable.entry_id,
        bookable.row_version,
        bookable.entry_type,
        bookable.movement_id,
        bookable.transaction_key,
        bookable.transaction_id,
        bookable.dispute_id,
        bookable.payout_id,
        bookable.merchant_id,
        bookable.source_system,
        bookable.currency_code,
        currencies.currency_exponent,
        bookable.amount,
        {{ to_minor_units('bookable.amount', 'currencies.currency_exponent') | indent(8) }} as amount_minor,
        bookable.is_orphan,
        bookable.has_currency_mismatch,
        {{ local_date('bookable.event_at_utc', 'coalesce(merchants.time_zone, bookable.merchant_time_zone)') }}
            as business_date,
        bookable.available_at,
        bookable.event_at_utc,
        greatest(bookable.loaded_at, coalesce(merchants.loaded_at, bookable.loaded_at)) as loaded_at
    from bookable
    left join currencies on bookable.currency_code = currencies.currency_code
    left join merchants
        on
            bookable.merchant_id = merchants.merchant_id
            and bookable.event_at_utc >= merchants.valid_from
            and bookable.event_at_utc < merchants.valid_to
),

accounts as (
    {%- for entry_type, legs in directions.items() %}
    {%- set last_type = loop.last %}
    {%- for account, direction in legs.items() %}
    select
        '{{ entry_type }}' as entry_type,
        '{{ account }}' as ledger_account,
        {{ direction }} as direction
    {{ 'union all' if not (last_type and loop.last) }}
    {%- endfor %}
    {%- endfor %}
),

final as (
    select
        dated.entry_id,
        accounts.ledger_account,
        dated.currency_code,
        dated.row_version,
        dated.entry_type,
        dated.movement_id,
        dated.transaction_key,
        dated.transaction_id,
        dated.dispute_id,
        dated.payout_id,
        dated.merchant_id,
        dated.source_system,
        cast(dated.currency_exponent as smallint) as currency_exponent,
        cast(dated.amount * accounts.direction as {{ type_money() }}) as amount,
        dated.amount_minor * accounts.direction as amount_minor,
        dated.is_orphan,
        dated.has_currency_mismatch,
        dated.business_date,
        dated.available_at,
        dated.event_at_utc,
        dated.loaded_at
    from dated
    inner join accounts on dated.entry_type = accounts.entry_type
)

select * from final
