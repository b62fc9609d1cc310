-- One row per payment: the fingerprint of int_transaction_inputs, of its profile and of the rates of its day.
with

transactions as (
    select
        transaction_key,
        row_version,
        business_date
    from {{ ref('int_transactions_unified') }}
),

profiles as (
    select
        transaction_key,
        payment_profile_key
    from {{ ref('int_payment_profiles') }}
),

rates as (
    select
        rate_date,
        count(rate_source_date) as rates_count,
        sum(cast({{ utc_microseconds('loaded_at') }} as decimal(38, 0))) as rates_landed
    from {{ ref('int_exchange_rates_filled') }}
    group by rate_date
),

final as (
    select
        transactions.transaction_key,
        {{ hash_key([
            'transactions.row_version',
            'profiles.payment_profile_key',
            'rates.rates_count',
            'rates.rates_landed',
        ]) }} as row_version,
        profiles.payment_profile_key
    from transactions
    left join profiles on transactions.transaction_key = profiles.transaction_key
    left join rates on transactions.business_date = rates.rate_date
)

select * from final
