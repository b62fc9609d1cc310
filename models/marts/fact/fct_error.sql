-- One row per logged error: where, how bad, and of the message only its length and flags.
with

errors as (
    select
        document_id,
        {{ canonical_customer_id('customer_id') }} as customer_id,
        {{ canonical_merchant_id('merchant_id') }} as merchant_id,
        transaction_id,
        payout_id,
        request_id,
        service,
        log_level,
        attempts_count,
        latency_ms,
        message_length,
        coalesce(is_retry, false) as is_retry,
        message_token is not null as has_text,
        coalesce(message_has_card_number, false) as message_has_card_number,
        coalesce(message_has_email, false) as message_has_email,
        coalesce(message_has_phone, false) as message_has_phone,
        ip_address_token is not null as context_has_ip_address,
        email_token is not null as context_has_email,
        {{ utc_date('occurred_at') }} as business_date,
        occurred_at,
        loaded_at
    from {{ ref('stg_mongodb__error_logs') }}
),

-- the payment it happened to; should both databases know its id, the error still counts once
named_sales as (
    select
        transaction_id,
        transaction_key,
        customer_key,
        customer_version_key,
        merchant_key,
        merchant_version_key,
        row_number() over (partition by transaction_id order by transaction_key) as sale_number
    from {{ ref('fct_sales') }}
    where transaction_id in (select errors.transaction_id from errors)
),

sales as (
    select
        transaction_id,
        transaction_key,
        customer_key,
        customer_version_key,
        merchant_key,
        merchant_version_key
    from named_sales
    where sale_number = 1
),

customers as (
    select
        customer_version_key,
        customer_key,
        customer_id,
        valid_from,
        valid_to
    from {{ ref('dim_customer_history') }}
),

merchants as (
    select
        merchant_version_key,
        merchant_key,
        merchant_id,
        valid_from,
        valid_to
    from {{ ref('dim_merchant_history') }}
),

dates as (
    select
        date_key,
        date_day
    from {{ ref('dim_date') }}
),

-- a service names the customer or the shop itself, or only the payment, which knows both
final as (
    select
        {{ hash_key(["'mongodb'", 'errors.document_id']) }} as error_key,
        coalesce(
            customers.customer_key,
            case
                when errors.customer_id = '{{ var("erased_key") }}' then '{{ var("erased_key") }}'
                when errors.customer_id is not null then '{{ var("unknown_key") }}'
            end,
            sales.customer_key,
            '{{ var("not_applicable_key") }}'
        ) as customer_key,
        coalesce(
            customers.customer_version_key,
            case
                when errors.customer_id = '{{ var("erased_key") }}' then '{{ var("erased_key") }}'
                when errors.customer_id is not null then '{{ var("unknown_key") }}'
            end,
            sales.customer_version_key,
            '{{ var("not_applicable_key") }}'
        ) as customer_version_key,
        coalesce(
            merchants.merchant_key,
            case when errors.merchant_id is not null then '{{ var("unknown_key") }}' end,
            sales.merchant_key,
            '{{ var("not_applicable_key") }}'
        ) as merchant_key,
        coalesce(
            merchants.merchant_version_key,
            case when errors.merchant_id is not null then '{{ var("unknown_key") }}' end,
            sales.merchant_version_key,
            '{{ var("not_applicable_key") }}'
        ) as merchant_version_key,
        {{ key_or_default('sales.transaction_key', 'errors.transaction_id') | indent(8) }} as transaction_key,
        coalesce(dates.date_key, {{ var('unknown_key') }}) as business_date_key,
        'mongodb' as source_system,
        errors.document_id,
        errors.transaction_id,
        errors.payout_id,
        errors.request_id,
        errors.service,
        errors.log_level,
        errors.attempts_count,
        errors.latency_ms,
        errors.message_length,
        errors.is_retry,
        errors.has_text,
        errors.message_has_card_number,
        errors.message_has_email,
        errors.message_has_phone,
        errors.context_has_ip_address,
        errors.context_has_email,
        errors.business_date,
        errors.occurred_at as event_at_utc,
        errors.occurred_at as updated_at,
        errors.loaded_at
    from errors
    left join sales on errors.transaction_id = sales.transaction_id
    left join customers
        on
            errors.customer_id = customers.customer_id
            and errors.occurred_at >= customers.valid_from
            and errors.occurred_at < customers.valid_to
    left join merchants
        on
            errors.merchant_id = merchants.merchant_id
            and errors.occurred_at >= merchants.valid_from
            and errors.occurred_at < merchants.valid_to
    left join dates on errors.business_date = dates.date_day
)

select * from final
