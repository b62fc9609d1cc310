-- One row per merchant and business date: a fingerprint of that day's payments, and of the day's rates.
with

transactions as (
    select
        merchant_id,
        business_date,
        count(*) as payments_count,
        sum({{ fingerprint(['row_version']) }}) as payments_sum
    from {{ ref('int_transactions_unified') }}
    where
        merchant_id is not null
        and business_date is not null
    group by merchant_id, business_date
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
        transactions.merchant_id,
        transactions.business_date,
        {{ hash_key([
            'transactions.merchant_id',
            'transactions.business_date',
            'transactions.payments_count',
            'transactions.payments_sum',
            'rates.rates_count',
            'rates.rates_landed',
        ]) }} as row_version
    from transactions
    left join rates on transactions.business_date = rates.rate_date
)

select * from final
