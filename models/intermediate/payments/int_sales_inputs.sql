-- One row per payment: the fingerprint of int_transaction_inputs, and of the exchange rates of its business date.
with

transactions as (
    select
        transaction_key,
        row_version,
        business_date
    from {{ ref('int_transactions_unified') }}
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
        {{ hash_key(['transactions.row_version', 'rates.rates_count', 'rates.rates_landed']) }} as row_version
    from transactions
    left join rates on transactions.business_date = rates.rate_date
)

select * from final
