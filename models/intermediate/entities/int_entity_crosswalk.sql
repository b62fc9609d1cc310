-- One row per entity type, source system and id as that system spells it.
with

oltp_customers as (
    select distinct customer_id as source_id from {{ ref('stg_oltp__customer_history') }}
),

oltp_merchants as (
    select distinct merchant_id as source_id from {{ ref('stg_oltp__merchant_history') }}
),

oltp_products as (
    select distinct product_id as source_id from {{ ref('stg_oltp__product_history') }}
),

oltp_payments as (
    select
        customer_id,
        merchant_id,
        product_id
    from {{ ref('stg_oltp__transaction') }}
),

mongodb_merchants as (
    select distinct merchant_id as source_id from {{ ref('stg_mongodb__merchants_history') }}
),

mongodb_products as (
    select
        product_id,
        merchant_id
    from {{ ref('stg_mongodb__products_history') }}
),

mongodb_payments as (
    select
        customer_id,
        merchant_id
    from {{ ref('stg_mongodb__transactions') }}
),

mongodb_feedback as (
    select
        customer_id,
        merchant_id
    from {{ ref('stg_mongodb__customer_feedback') }}
),

mongodb_interactions as (
    select
        customer_id,
        product_id
    from {{ ref('stg_mongodb__user_interactions') }}
),

-- an entity is known by its own record, or only because something else names it
mentions as (
    select
        'customer' as entity_type,
        'oltp' as source_system,
        source_id,
        true as is_record
    from oltp_customers

    union all

    select
        'merchant' as entity_type,
        'oltp' as source_system,
        source_id,
        true as is_record
    from oltp_merchants

    union all

    select
        'product' as entity_type,
        'oltp' as source_system,
        source_id,
        true as is_record
    from oltp_products

    union all

    select
        'customer' as entity_type,
        'oltp' as source_system,
        customer_id as source_id,
        false as is_record
    from oltp_payments

    union all

    select
        'merchant' as entity_type,
        'oltp' as source_system,
        merchant_id as source_id,
        false as is_record
    from oltp_payments

    union all

    select
        'product' as entity_type,
        'oltp' as source_system,
        product_id as source_id,
        false as is_record
    from oltp_payments

    union all

    select
        'merchant' as entity_type,
        'mongodb' as source_system,
        source_id,
        true as is_record
    from mongodb_merchants

    union all

    select
        'product' as entity_type,
        'mongodb' as source_system,
        product_id as source_id,
        true as is_record
    from mongodb_products

    union all

    select
        'merchant' as entity_type,
        'mongodb' as source_system,
        merchant_id as source_id,
        false as is_record
    from mongodb_products

    union all

    select
        'customer' as entity_type,
        'mongodb' as source_system,
        customer_id as source_id,
        false as is_record
    from mongodb_payments

    union all

    select
        'merchant' as entity_type,
        'mongodb' as source_system,
        merchant_id as source_id,
        false as is_record
    from mongodb_payments

    union all

    select
        'customer' as entity_type,
        'mongodb' as source_system,
        customer_id as source_id,
        false as is_record
    from mongodb_feedback

    union all

    select
        'merchant' as entity_type,
        'mongodb' as source_system,
        merchant_id as source_id,
        false as is_record
    from mongodb_feedback

    union all

    select
        'customer' as entity_type,
        'mongodb' as source_system,
        customer_id as source_id,
        false as is_record
    from mongodb_interactions

    union all

    select
        'product' as entity_type,
        'mongodb' as source_system,
        product_id as source_id,
        false as is_record
    from mongodb_interactions
),

spellings as (
    select
        entity_type,
        source_system,
        source_id,
        max(case when is_record then 1 else 0 end) = 1 as is_record
    from mentions
    where
        source_id is not null
        -- landing puts it where a person stood who was erased: it names nobody
        and source_id != '{{ var("erased_key") }}'
    group by entity_type, source_system, source_id
),

canonical as (
    select
        entity_type,
        source_system,
        source_id,
        is_record,
        case entity_type
            when 'customer' then {{ canonical_customer_id('source_id') }}
            when 'merchant' then {{ canonical_merchant_id('source_id') }}
            else source_id
        end as canonical_id,
        {{ entity_number('source_id') }} as entity_number
    from spellings
),

final as (
    select
        entity_type,
        source_system,
        source_id,
        canonical_id,
        entity_number,
        is_record,
        max(case when source_system = 'oltp' then 1 else 0 end) over (
            partition by entity_type, canonical_id
        ) = 1 as present_in_oltp,
        max(case when source_system = 'mongodb' then 1 else 0 end) over (
            partition by entity_type, canonical_id
        ) = 1 as present_in_mongodb
    from canonical
)

select * from final
