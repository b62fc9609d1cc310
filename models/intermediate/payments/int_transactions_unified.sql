-- One row per source system and payment: both databases in one shape, told apart by `source_system`.
{{ config(
    materialized='incremental',
    incremental_strategy='append',
    pre_hook="{{ remove_stale('int_transaction_inputs') }}",
) }}
with

inputs as (
    select
        transaction_key,
        row_version,
        source_system,
        transaction_id,
        loaded_at
    from {{ ref('int_transaction_inputs') }}
    {{ only_changed() }}
),

oltp_transactions as (
    select
        transaction_id,
        {{ canonical_merchant_id('merchant_id') }} as merchant_id,
        {{ canonical_customer_id('customer_id') }} as customer_id,
        payment_method_id,
        product_id,
        device_id,
        location_id,
        upper(currency_code) as currency_code,
        status_code,
        quantity,
        amount,
        tax,
        created_at,
        updated_at,
        loaded_at
    from {{ ref('stg_oltp__transaction') }}
    {% if is_incremental() -%}
    where transaction_id in (select transaction_id from inputs where source_system = 'oltp')
    {%- endif %}
),

mongodb_documents as (
    select
        transaction_id,
        {{ canonical_merchant_id('merchant_id') }} as merchant_id,
        {{ canonical_customer_id('customer_id') }} as customer_id,
        currency_code,
        status,
        time_zone,
        location_country,
        amount,
        fraud_score,
        has_invalid_amount,
        coalesce(created_at, updated_at) as created_at,
        updated_at,
        loaded_at,
        -- nothing but the application keeps transaction_id unique in the collection: the latest document speaks
        row_number() over (
            partition by transaction_id
            order by updated_at desc, document_id desc
        ) as recency
    from {{ ref('stg_mongodb__transactions') }}
    {% if is_incremental() -%}
    where transaction_id in (select transaction_id from inputs where source_system = 'mongodb')
    {%- endif %}
),

locations as (
    select
        location_id,
        country_code
    from {{ ref('stg_oltp__location') }}
),

countries as (
    select
        country_name,
        country_code,
        alpha3_code,
        row_number() over (partition by country_code order by loaded_at desc, document_id desc) as recency
    from {{ ref('stg_mongodb__country_region_codes') }}
),

currencies as (
    select
        currency_code,
        exponent as currency_exponent
    from {{ ref('currency_exponents') }}
),

merchants as (
    select
        merchant_id,
        {{ known_time_zone('time_zone') }} as time_zone,
        valid_from,
        valid_to
    from {{ ref('int_merchant_versions') }}
),

events as (
    select
        transaction_key,
        event_type,
        currency_code,
        amount,
        occurred_at,
        event_id,
        coalesce(fee_id, event_id) as fee_id
    from {{ ref('int_payment_events_deduped') }}
    where event_type in ('payment.captured', 'fee.charged'){{ and_payment_in('inputs') }}
),

-- a document writes its country as a code or as a name
country_spellings as (
    select
        country_code as spelling,
        country_code
    from countries
    where recency = 1

    union

    select
        alpha3_code as spelling,
        country_code
    from countries
    where recency = 1

    union

    select
        upper(country_name) as spelling,
        country_code
    from countries
    where recency = 1
),

country_codes as (
    select
        spelling,
        min(country_code) as country_code
    from country_spellings
    where spelling is not null
    group by spelling
),

unified as (
    select
        'oltp' as source_system,
        oltp_transactions.transaction_id,
        oltp_transactions.merchant_id,
        oltp_transactions.customer_id,
        oltp_transactions.payment_method_id,
        oltp_transactions.product_id,
        oltp_transactions.device_id,
        oltp_transactions.location_id,
        locations.country_code,
        oltp_transactions.currency_code,
        oltp_transactions.status_code,
        oltp_transactions.status_code as source_status,
        cast(null as {{ type_text() }}) as document_time_zone,
        oltp_transactions.quantity,
        oltp_transactions.amount,
        oltp_transactions.tax,
        cast(null as decimal(9, 6)) as fraud_score,
        oltp_transactions.amount is null as has_invalid_amount,
        oltp_transactions.created_at,
        oltp_transactions.updated_at,
        oltp_transactions.loaded_at
    from oltp_transactions
    left join locations on oltp_transactions.location_id = locations.location_id

    union all

    select
        'mongodb' as source_system,
        mongodb_documents.transaction_id,
        mongodb_documents.merchant_id,
        mongodb_documents.customer_id,
        null as payment_method_id,
        null as product_id,
        null as device_id,
        null as location_id,
        coalesce(country_codes.country_code, mongodb_documents.location_country) as country_code,
        mongodb_documents.currency_code,
        {{ map_values_of('mongodb_documents.status', mongodb_status_mapping()) | indent(8) }} as status_code,
        mongodb_documents.status as source_status,
        {{ known_time_zone('mongodb_documents.time_zone') }} as document_time_zone,
        null as quantity,
        mongodb_documents.amount,
        -- a document does not say what part of its amount is tax: unknown is null, not zero
        null as tax,
        mongodb_documents.fraud_score,
        mongodb_documents.has_invalid_amount,
        mongodb_documents.created_at,
        mongodb_documents.updated_at,
        mongodb_documents.loaded_at
    from mongodb_documents
    left join country_codes on upper(mongodb_documents.location_country) = country_codes.spelling
    where mongodb_documents.recency = 1
),

keyed as (
    select
        *,
        {{ hash_key(['source_system', 'transaction_id']) }} as transaction_key
    from unified
),

captures as (
    select
        transaction_key,
        min(occurred_at) as captured_at
    from events
    where event_type = 'payment.captured'
    group by transaction_key
),

-- a fee may be told twice, under two event ids: it is one fee
fee_tellings as (
    select
        transaction_key,
        currency_code,
        amount,
        row_number() over (partition by transaction_key, fee_id order by occurred_at, event_id) as telling
    from events
    where event_type = 'fee.charged'
),

-- in the payment's own currency only: amounts of different currencies are never added
fees as (
    select
        transaction_key,
        currency_code,
        cast(sum(amount) as {{ type_money() }}) as fee_amount
    from fee_tellings
    where telling = 1
    group by transaction_key, currency_code
),

-- the clock that counts is the one in the shop at the time of the sale
zoned as (
    select
        keyed.transaction_key,
        keyed.source_system,
        keyed.transaction_id,
        keyed.merchant_id,
        keyed.customer_id,
        keyed.payment_method_id,
        keyed.product_id,
        keyed.device_id,
        keyed.location_id,
        keyed.country_code,
        keyed.currency_code,
        keyed.status_code,
        keyed.source_status,
        coalesce(merchants.time_zone, keyed.document_time_zone, 'UTC') as merchant_time_zone,
        keyed.quantity,
        keyed.amount,
        keyed.tax,
        keyed.fraud_score,
        keyed.has_invalid_amount,
        keyed.created_at,
        keyed.updated_at,
        keyed.loaded_at
    from keyed
    left join merchants
        on
            keyed.merchant_id = merchants.merchant_id
            and keyed.created_at >= merchants.valid_from
            and keyed.created_at < merchants.valid_to
),

final as (
    select
        zoned.transaction_key,
        inputs.row_version,
        zoned.source_system,
        zoned.transaction_id,
        zoned.merchant_id,
        zoned.customer_id,
        zoned.payment_method_id,
        zoned.product_id,
        zoned.device_id,
        zoned.location_id,
        zoned.country_code,
        zoned.currency_code,
        zoned.status_code,
        zoned.source_status,
        zoned.merchant_time_zone,
        currencies.currency_exponent,
        zoned.quantity,
        zoned.amount,
        zoned.tax,
        {% if var('amount_includes_tax') -%}
        cast(zoned.amount - zoned.tax as {{ type_money() }}) as amount_excluding_tax,
        {% else -%}
        case when zoned.tax is not null then zoned.amount end as amount_excluding_tax,
        {% endif -%}
        {{ to_minor_units('zoned.amount', 'currencies.currency_exponent') | indent(8) }} as amount_minor,
        fees.fee_amount,
        zoned.fraud_score,
        zoned.has_invalid_amount,
        captures.captured_at is not null
        or coalesce(zoned.status_code in ({{ quoted(captured_statuses()) }}), false) as is_ever_captured,
        {{ local_date('zoned.created_at', 'zoned.merchant_time_zone') }} as business_date,
        zoned.created_at as event_at_utc,
        captures.captured_at,
        zoned.created_at,
        zoned.updated_at,
        coalesce(inputs.loaded_at, zoned.loaded_at) as loaded_at
    from zoned
    left join inputs on zoned.transaction_key = inputs.transaction_key
    left join currencies on zoned.currency_code = currencies.currency_code
    left join captures on zoned.transaction_key = captures.transaction_key
    left join fees
        on
            zoned.transaction_key = fees.transaction_key
            and zoned.currency_code = fees.currency_code
)

select * from final
