-- One row per piece of feedback: its rating, and of what was written only length, language and flags.
with

feedback as (
    select
        document_id,
        {{ canonical_customer_id('customer_id') }} as customer_id,
        {{ canonical_merchant_id('merchant_id') }} as merchant_id,
        transaction_id,
        language_code,
        channel,
        rating,
        comment_length,
        comment_token is not null as has_text,
        coalesce(comment_has_card_number, false) as comment_has_card_number,
        coalesce(comment_has_email, false) as comment_has_email,
        coalesce(comment_has_phone, false) as comment_has_phone,
        created_at,
        loaded_at
    from {{ ref('stg_mongodb__customer_feedback') }}
),

-- the payment that is talked about; should both databases know its id, the feedback still counts once
named_sales as (
    select
        transaction_id,
        transaction_key,
        product_key,
        product_version_key,
        event_at_utc,
        row_number() over (partition by transaction_id order by transaction_key) as sale_number
    from {{ ref('fct_sales') }}
    where transaction_id in (select feedback.transaction_id from feedback)
),

sales as (
    select
        transaction_id,
        transaction_key,
        product_key,
        product_version_key,
        event_at_utc
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
        {{ known_time_zone('time_zone') }} as time_zone,
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

-- who the customer and the shop were when it was written, which may be long after they met
joined as (
    select
        {{ hash_key(["'mongodb'", 'feedback.document_id']) }} as feedback_key,
        {{ key_or_default('customers.customer_key', 'feedback.customer_id') | indent(8) }} as customer_key,
        {{ key_or_default('customers.customer_version_key', 'feedback.customer_id') | indent(8) }}
            as customer_version_key,
        {{ key_or_default('merchants.merchant_key', 'feedback.merchant_id') | indent(8) }} as merchant_key,
        {{ key_or_default('merchants.merchant_version_key', 'feedback.merchant_id') | indent(8) }}
            as merchant_version_key,
        {{ key_or_default('sales.product_key', 'feedback.transaction_id') | indent(8) }} as product_key,
        {{ key_or_default('sales.product_version_key', 'feedback.transaction_id') | indent(8) }}
            as product_version_key,
        {{ key_or_default('sales.transaction_key', 'feedback.transaction_id') | indent(8) }} as transaction_key,
        'mongodb' as source_system,
        feedback.document_id,
        feedback.transaction_id,
        feedback.channel,
        feedback.language_code,
        feedback.rating,
        feedback.comment_length,
        cast({{ days_between(utc_date('sales.event_at_utc'), utc_date('feedback.created_at')) }} as integer)
            as days_after_sale,
        feedback.has_text,
        feedback.comment_has_card_number,
        feedback.comment_has_email,
        feedback.comment_has_phone,
        {{ local_date('feedback.created_at', 'merchants.time_zone') }} as business_date,
        feedback.created_at as event_at_utc,
        feedback.created_at as updated_at,
        feedback.loaded_at
    from feedback
    left join sales on feedback.transaction_id = sales.transaction_id
    left join customers
        on
            feedback.customer_id = customers.customer_id
            and feedback.created_at >= customers.valid_from
            and feedback.created_at < customers.valid_to
    left join merchants
        on
            feedback.merchant_id = merchants.merchant_id
            and feedback.created_at >= merchants.valid_from
            and feedback.created_at < merchants.valid_to
),

final as (
    select
        joined.feedback_key,
        joined.customer_key,
        joined.customer_version_key,
        joined.merchant_key,
        joined.merchant_version_key,
        joined.product_key,
        joined.product_version_key,
        joined.transaction_key,
        coalesce(dates.date_key, {{ var('unknown_key') }}) as business_date_key,
        joined.source_system,
        joined.document_id,
        joined.transaction_id,
        joined.channel,
        joined.language_code,
        joined.rating,
        joined.comment_length,
        joined.days_after_sale,
        joined.has_text,
        joined.comment_has_card_number,
        joined.comment_has_email,
        joined.comment_has_phone,
        joined.business_date,
        joined.event_at_utc,
        joined.updated_at,
        joined.loaded_at
    from joined
    left join dates on joined.business_date = dates.date_day
)

select * from final
