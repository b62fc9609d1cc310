-- One row per product, as it is known now, with the units ever sold; earlier versions are in dim_product_history.
with

product_history as (
    select
        product_key,
        product_version_key,
        merchant_key,
        product_id,
        product_name,
        category,
        currency_code,
        version_number,
        unit_price,
        is_active,
        is_deleted,
        is_inferred,
        created_at,
        updated_at,
        is_current
    from {{ ref('dim_product_history') }}
),

-- units count once the money was taken, whatever a refund or a dispute did to it later, and whatever the currency
units_sold as (
    select
        product_key,
        sum(quantity) as units
    from {{ ref('fct_sales') }}
    where
        is_ever_captured
        and product_key not in ({{ quoted([var('unknown_key'), var('not_applicable_key'), var('erased_key')]) }})
    group by product_key
),

final as (
    select
        product_history.product_key,
        product_history.product_version_key,
        product_history.merchant_key,
        product_history.product_id,
        product_history.product_name,
        product_history.category,
        product_history.currency_code,
        product_history.version_number as versions,
        cast(coalesce(units_sold.units, 0) as bigint) as total_sell,
        product_history.unit_price,
        product_history.is_active,
        product_history.is_deleted,
        product_history.is_inferred,
        product_history.created_at,
        product_history.updated_at
    from product_history
    left join units_sold on product_history.product_key = units_sold.product_key
    where product_history.is_current
)

select * from final
