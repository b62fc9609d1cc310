-- One row per payment: how many payments the same customer, device, card and merchant had made strictly before it.
{%- set members = ['customer', 'device', 'payment_method', 'merchant'] %}
with

transactions as (
    select
        transaction_key,
        source_system,
        customer_id,
        device_id,
        payment_method_id,
        merchant_id,
        currency_code,
        amount,
        business_date,
        event_at_utc,
        loaded_at
    from {{ ref('int_transactions_unified') }}
),

rates as (
    select
        currency_code,
        rate_date,
        rate_to_reporting
    from {{ ref('int_exchange_rates_filled') }}
),

-- yen and euros are never added: sums are in reporting currency, and a payment without a rate adds nothing to them
converted as (
    select
        transactions.transaction_key,
        transactions.source_system,
        transactions.customer_id,
        transactions.device_id,
        transactions.payment_method_id,
        transactions.merchant_id,
        {{ convert_money('transactions.amount', 'rates.rate_to_reporting') }} as amount_reporting,
        {{ utc_microseconds('transactions.event_at_utc') }} as moment,
        transactions.event_at_utc,
        transactions.loaded_at
    from transactions
    left join rates
        on
            transactions.currency_code = rates.currency_code
            and transactions.business_date = rates.rate_date
),

seen_by_customer as (
    {{ payments_before('converted', 'customer_id') | indent(4) }}
),

seen_by_device as (
    {{ payments_before('converted', 'device_id') | indent(4) }}
),

seen_by_payment_method as (
    {{ payments_before('converted', 'payment_method_id') | indent(4) }}
),

seen_by_merchant as (
    {{ payments_before('converted', 'merchant_id') | indent(4) }}
),

-- where the source names no device or card there is nothing to count: null, not zero
final as (
    select
        converted.transaction_key,
        converted.source_system,
        '{{ var("reporting_currency") }}' as reporting_currency_code,
        {%- for member in members %}
        {%- for name in velocity_windows() %}
        cast(seen_by_{{ member }}.payments_{{ name }} as bigint) as {{ member }}_payments_{{ name }},
        cast(
            coalesce(
                seen_by_{{ member }}.amount_{{ name }},
                case when seen_by_{{ member }}.payments_{{ name }} = 0 then 0 end
            ) as decimal(38, 4)
        ) as {{ member }}_amount_{{ name }},
        {%- endfor %}
        {%- endfor %}
        converted.event_at_utc,
        converted.loaded_at
    from converted
    left join seen_by_customer on converted.transaction_key = seen_by_customer.transaction_key
    left join seen_by_device on converted.transaction_key = seen_by_device.transaction_key
    left join seen_by_payment_method on converted.transaction_key = seen_by_payment_method.transaction_key
    left join seen_by_merchant on converted.transaction_key = seen_by_merchant.transaction_key
)

select * from final
