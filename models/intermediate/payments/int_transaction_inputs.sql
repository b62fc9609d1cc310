-- One row per payment: a fingerprint of everything its row in the facts stands on. When it changes, the facts do.
with

locations as (
    select
        location_id,
        loaded_at
    from {{ ref('stg_oltp__location') }}
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
        loaded_at
    from {{ ref('stg_oltp__transaction') }}
),

mongodb_transactions as (
    select
        transaction_id,
        {{ canonical_merchant_id('merchant_id') }} as merchant_id,
        {{ canonical_customer_id('customer_id') }} as customer_id,
        -- of a payment with several documents, all of them count
        count(*) over (partition by transaction_id) as documents_count,
        max(loaded_at) over (partition by transaction_id) as loaded_at,
        row_number() over (partition by transaction_id order by updated_at desc, document_id desc) as recency
    from {{ ref('stg_mongodb__transactions') }}
),

events as (
    select
        transaction_key,
        count(*) as events_count,
        max(loaded_at) as loaded_at
    from {{ ref('int_payment_events_deduped') }}
    where transaction_key is not null
    group by transaction_key
),

-- a person or a shop was somewhere at the time, and the place has its own row
customer_versions as (
    select
        customer_id,
        location_id,
        loaded_at
    from {{ ref('int_customer_versions') }}
),

customers as (
    select
        customer_versions.customer_id,
        count(*) + count(locations.location_id) as versions_count,
        max({{ latest_of(['customer_versions.loaded_at', 'locations.loaded_at']) }}) as loaded_at
    from customer_versions
    left join locations on customer_versions.location_id = locations.location_id
    group by customer_versions.customer_id
),

merchant_versions as (
    select
        merchant_id,
        location_id,
        loaded_at
    from {{ ref('int_merchant_versions') }}
),

merchants as (
    select
        merchant_versions.merchant_id,
        count(*) + count(locations.location_id) as versions_count,
        max({{ latest_of(['merchant_versions.loaded_at', 'locations.loaded_at']) }}) as loaded_at
    from merchant_versions
    left join locations on merchant_versions.location_id = locations.location_id
    group by merchant_versions.merchant_id
),

products as (
    select
        product_id,
        count(*) as versions_count,
        max(loaded_at) as loaded_at
    from {{ ref('int_product_versions') }}
    group by product_id
),

devices as (
    select device_id
    from {{ ref('stg_oltp__device') }}
),

payment_methods as (
    select
        payment_method_id,
        loaded_at
    from {{ ref('stg_oltp__payment_method') }}
),

-- lists of a few hundred rows that hardly ever change: whatever changes in one concerns every payment
reference_lists as (
    select loaded_at from {{ ref('stg_oltp__currency') }}
    union all
    select loaded_at from {{ ref('stg_oltp__status') }}
    union all
    select loaded_at from {{ ref('stg_mongodb__country_region_codes') }}
),

reference_version as (
    select
        count(*) as rows_count,
        max(loaded_at) as loaded_at
    from reference_lists
),

transactions as (
    select
        'oltp' as source_system,
        transaction_id,
        merchant_id,
        customer_id,
        payment_method_id,
        product_id,
        device_id,
        location_id,
        1 as documents_count,
        loaded_at
    from oltp_transactions

    union all

    select
        'mongodb' as source_system,
        transaction_id,
        merchant_id,
        customer_id,
        null as payment_method_id,
        null as product_id,
        null as device_id,
        null as location_id,
        documents_count,
        loaded_at
    from mongodb_transactions
    where recency = 1
),

keyed as (
    select
        *,
        {{ hash_key(['source_system', 'transaction_id']) }} as transaction_key
    from transactions
),

-- of a device a fact takes the key alone: whether it is known is all that can change
final as (
    select
        keyed.transaction_key,
        {{ hash_key([
            'keyed.transaction_key',
            'keyed.documents_count',
            utc_microseconds('keyed.loaded_at'),
            'events.events_count',
            utc_microseconds('events.loaded_at'),
            'customers.versions_count',
            utc_microseconds('customers.loaded_at'),
            'merchants.versions_count',
            utc_microseconds('merchants.loaded_at'),
            'products.versions_count',
            utc_microseconds('products.loaded_at'),
            utc_microseconds('locations.loaded_at'),
            'devices.device_id',
            utc_microseconds('payment_methods.loaded_at'),
            'reference_version.rows_count',
            utc_microseconds('reference_version.loaded_at'),
        ]) }} as row_version,
        keyed.source_system,
        keyed.transaction_id,
        case when events.loaded_at > keyed.loaded_at then events.loaded_at else keyed.loaded_at end as loaded_at
    from keyed
    cross join reference_version
    left join events on keyed.transaction_key = events.transaction_key
    left join customers on keyed.customer_id = customers.customer_id
    left join merchants on keyed.merchant_id = merchants.merchant_id
    left join products on keyed.product_id = products.product_id
    left join locations on keyed.location_id = locations.location_id
    left join devices on keyed.device_id = devices.device_id
    left join payment_methods on keyed.payment_method_id = payment_methods.payment_method_id
)

select * from final
