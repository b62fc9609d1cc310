-- One row per interaction of a visitor with a shop: what was looked at, put in the basket, searched or bought.
with

interactions as (
    select
        document_id,
        {{ canonical_customer_id('customer_id') }} as customer_id,
        session_id,
        product_id,
        device_id,
        event_type,
        device_type,
        operating_system,
        browser,
        is_known_event_type,
        ip_address_token is not null as device_has_ip_address,
        {{ utc_date('occurred_at') }} as business_date,
        occurred_at,
        loaded_at
    from {{ ref('stg_mongodb__user_interactions') }}
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

products as (
    select
        product_version_key,
        product_key,
        merchant_key,
        product_id,
        valid_from,
        valid_to
    from {{ ref('dim_product_history') }}
),

devices as (
    select
        device_key,
        device_id
    from {{ ref('dim_device') }}
),

dates as (
    select
        date_key,
        date_day
    from {{ ref('dim_date') }}
),

-- a visit has no shop clock: its business date is UTC's
final as (
    select
        {{ hash_key(["'mongodb'", 'interactions.document_id']) }} as interaction_key,
        {{ key_or_default('customers.customer_key', 'interactions.customer_id') | indent(8) }} as customer_key,
        {{ key_or_default('customers.customer_version_key', 'interactions.customer_id') | indent(8) }}
            as customer_version_key,
        {{ key_or_default('products.product_key', 'interactions.product_id') | indent(8) }} as product_key,
        {{ key_or_default('products.product_version_key', 'interactions.product_id') | indent(8) }}
            as product_version_key,
        {{ key_or_default('products.merchant_key', 'interactions.product_id') | indent(8) }} as merchant_key,
        {{ key_or_default('devices.device_key', 'interactions.device_id') | indent(8) }} as device_key,
        coalesce(dates.date_key, {{ var('unknown_key') }}) as business_date_key,
        'mongodb' as source_system,
        interactions.document_id,
        interactions.session_id,
        interactions.event_type,
        {{ mask_device('interactions.device_type', 'interactions.operating_system') }} as device_family,
        interactions.browser,
        interactions.is_known_event_type,
        interactions.device_has_ip_address,
        interactions.business_date,
        interactions.occurred_at as event_at_utc,
        interactions.occurred_at as updated_at,
        interactions.loaded_at
    from interactions
    left join customers
        on
            interactions.customer_id = customers.customer_id
            and interactions.occurred_at >= customers.valid_from
            and interactions.occurred_at < customers.valid_to
    left join products
        on
            interactions.product_id = products.product_id
            and interactions.occurred_at >= products.valid_from
            and interactions.occurred_at < products.valid_to
    left join devices on interactions.device_id = devices.device_id
    left join dates on interactions.business_date = dates.date_day
)

select * from final
