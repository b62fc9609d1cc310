-- One row per payout: what was announced, what its movements come to, and the difference in minor units.
with

payouts as (
    select
        payout_id,
        merchant_id,
        source_system,
        payout_status,
        failure_reason,
        currency_code,
        currency_exponent,
        amount,
        amount_minor,
        is_successful,
        is_debit,
        arrival_date,
        business_date,
        event_at_utc,
        failed_at,
        loaded_at
    from {{ ref('int_payouts') }}
),

settlements as (
    select
        payout_id,
        movement_id,
        currency_code,
        amount,
        amount_minor,
        settlement_lag_seconds,
        payout_status,
        is_successful,
        is_known_movement,
        has_currency_mismatch,
        has_merchant_mismatch,
        event_at_utc,
        loaded_at
    from {{ ref('fct_settlement') }}
),

merchants as (
    select
        merchant_key,
        merchant_id,
        trade_name
    from {{ ref('dim_merchant') }}
),

currencies as (
    select
        currency_key,
        currency_code
    from {{ ref('dim_currency') }}
),

dates as (
    select
        date_key,
        date_day
    from {{ ref('dim_date') }}
),

-- what stands in another currency than the payout is no part of its sum
sums as (
    select
        payout_id,
        count(*) as movements_count,
        sum(case when is_known_movement then 0 else 1 end) as unknown_movements_count,
        sum(case when has_currency_mismatch then 1 else 0 end) as foreign_currency_movements_count,
        sum(case when has_merchant_mismatch then 1 else 0 end) as foreign_merchant_movements_count,
        sum(case when not has_currency_mismatch then amount end) as movements_amount,
        sum(case when not has_currency_mismatch then amount_minor end) as movements_amount_minor,
        max(loaded_at) as loaded_at
    from settlements
    group by payout_id
),

-- what failed was paid again by the payout that lists the same movements later
failed as (
    select
        payout_id,
        movement_id,
        event_at_utc
    from settlements
    where payout_status = 'failed'
),

replacements as (
    select
        failed.payout_id,
        min(settlements.payout_id) as replaced_by_payout_id
    from failed
    inner join settlements
        on
            failed.movement_id = settlements.movement_id
            and failed.payout_id != settlements.payout_id
            and failed.event_at_utc < settlements.event_at_utc
    where settlements.is_successful
    group by failed.payout_id
),

compared as (
    select
        payouts.payout_id,
        payouts.merchant_id,
        payouts.source_system,
        payouts.payout_status,
        payouts.failure_reason,
        payouts.currency_code,
        payouts.currency_exponent,
        payouts.amount,
        payouts.amount_minor,
        payouts.is_successful,
        payouts.is_debit,
        payouts.arrival_date,
        payouts.business_date,
        payouts.event_at_utc,
        payouts.failed_at,
        replacements.replaced_by_payout_id,
        coalesce(sums.movements_count, 0) as movements_count,
        coalesce(sums.unknown_movements_count, 0) as unknown_movements_count,
        coalesce(sums.foreign_currency_movements_count, 0) as foreign_currency_movements_count,
        coalesce(sums.foreign_merchant_movements_count, 0) as foreign_merchant_movements_count,
        coalesce(sums.movements_amount, 0) as movements_amount,
        coalesce(sums.movements_amount_minor, 0) as movements_amount_minor,
        greatest(payouts.loaded_at, coalesce(sums.loaded_at, payouts.loaded_at)) as loaded_at
    from payouts
    left join sums on payouts.payout_id = sums.payout_id
    left join replacements on payouts.payout_id = replacements.payout_id
),

final as (
    select
        compared.payout_id,
        {{ key_or_default('merchants.merchant_key', 'compared.merchant_id') }} as merchant_key,
        {{ key_or_default('currencies.currency_key', 'compared.currency_code') }} as currency_key,
        coalesce(dates.date_key, {{ var('unknown_key') }}) as business_date_key,
        compared.merchant_id,
        merchants.trade_name,
        compared.source_system,
        compared.payout_status,
        compared.failure_reason,
        compared.replaced_by_payout_id,
        compared.currency_code,
        case
            when compared.amount_minor is null then 'not_comparable'
            when compared.unknown_movements_count > 0 then 'unknown_movements'
            when compared.amount_minor != compared.movements_amount_minor then 'difference'
            else 'reconciled'
        end as reconciliation_status,
        cast(compared.currency_exponent as smallint) as currency_exponent,
        cast(compared.movements_count as bigint) as movements_count,
        cast(compared.unknown_movements_count as bigint) as unknown_movements_count,
        cast(compared.foreign_currency_movements_count as bigint) as foreign_currency_movements_count,
        cast(compared.foreign_merchant_movements_count as bigint) as foreign_merchant_movements_count,
        compared.amount as announced_amount,
        cast(compared.movements_amount as decimal(38, 4)) as movements_amount,
        cast(compared.amount - compared.movements_amount as decimal(38, 4)) as difference_amount,
        compared.amount_minor as announced_amount_minor,
        cast(compared.movements_amount_minor as bigint) as movements_amount_minor,
        cast(compared.amount_minor - compared.movements_amount_minor as bigint) as difference_minor,
        compared.is_successful,
        compared.is_debit,
        coalesce(compared.amount_minor != compared.movements_amount_minor, true) as has_difference,
        compared.unknown_movements_count > 0 as has_unknown_movements,
        compared.arrival_date,
        compared.business_date,
        compared.event_at_utc,
        compared.failed_at as reversed_at,
        compared.loaded_at
    from compared
    left join merchants on compared.merchant_id = merchants.merchant_id
    left join currencies on compared.currency_code = currencies.currency_code
    left join dates on compared.business_date = dates.date_day
)

select * from final
