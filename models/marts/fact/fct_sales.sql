-- One row per payment of either database: its money in original, settlement and reporting currency, and its keys.
{{ config(
    materialized='incremental',
    incremental_strategy='append',
    pre_hook="{{ remove_stale('int_sales_inputs') }}",
) }}
with

inputs as (
    select
        transaction_key,
        row_version,
        payment_profile_key
    from {{ ref('int_sales_inputs') }}
    {{ only_changed() }}
),

transactions as (
    select
        transaction_key,
        source_system,
        transaction_id,
        merchant_id,
        customer_id,
        payment_method_id,
        product_id,
        device_id,
        location_id,
        country_code,
        currency_code,
        status_code,
        source_status,
        quantity,
        currency_exponent,
        amount,
        tax,
        amount_excluding_tax,
        {% if var('amount_includes_tax') -%}
        amount as gross_amount,
        {% else -%}
        cast(amount + coalesce(tax, 0) as {{ type_money() }}) as gross_amount,
        {% endif -%}
        amount_minor,
        cast(coalesce(fee_amount, 0) as {{ type_money() }}) as fee_amount,
        has_invalid_amount,
        is_ever_captured,
        business_date,
        {{ local_date('captured_at', 'merchant_time_zone') }} as captured_date,
        event_at_utc,
        captured_at,
        created_at,
        updated_at,
        loaded_at
    from {{ ref('int_transactions_unified') }}
    {% if is_incremental() -%}
    where transaction_key in (select transaction_key from inputs)
    {%- endif %}
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
        settlement_currency_code,
        valid_from,
        valid_to
    from {{ ref('dim_merchant_history') }}
),

products as (
    select
        product_version_key,
        product_key,
        product_id,
        valid_from,
        valid_to
    from {{ ref('dim_product_history') }}
),

payment_methods as (
    select
        payment_method_key,
        payment_method_id
    from {{ ref('dim_payment_method') }}
),

devices as (
    select
        device_key,
        device_id
    from {{ ref('dim_device') }}
),

locations as (
    select
        location_key,
        location_id
    from {{ ref('dim_location') }}
),

countries as (
    select
        country_key,
        country_code
    from {{ ref('dim_country') }}
),

currencies as (
    select
        currency_key,
        currency_code
    from {{ ref('dim_currency') }}
),

statuses as (
    select
        status_key,
        status_code
    from {{ ref('dim_status') }}
),

dates as (
    select
        date_key,
        date_day
    from {{ ref('dim_date') }}
),

reporting_rates as (
    select
        currency_code,
        rate_date,
        rate_to_reporting,
        rate_status,
        rate_source_date,
        rate_age_days
    from {{ ref('int_exchange_rates_filled') }}
),

settlement_rates as (
    select
        currency_code,
        settlement_currency_code,
        rate_date,
        rate_to_settlement,
        rate_status,
        rate_source_date
    from {{ ref('int_settlement_rates') }}
),

-- every join is a left join to at most one row: no payment is lost, none is doubled
joined as (
    select
        transactions.transaction_key,
        {{ key_or_default('customers.customer_key', 'transactions.customer_id') | indent(8) }} as customer_key,
        {{ key_or_default('customers.customer_version_key', 'transactions.customer_id') | indent(8) }}
            as customer_version_key,
        {{ key_or_default('merchants.merchant_key', 'transactions.merchant_id') | indent(8) }} as merchant_key,
        {{ key_or_default('merchants.merchant_version_key', 'transactions.merchant_id') | indent(8) }}
            as merchant_version_key,
        {{ key_or_default('products.product_key', 'transactions.product_id') | indent(8) }} as product_key,
        {{ key_or_default('products.product_version_key', 'transactions.product_id') | indent(8) }}
            as product_version_key,
        {{ key_or_default('payment_methods.payment_method_key', 'transactions.payment_method_id') | indent(8) }}
            as payment_method_key,
        {{ key_or_default('devices.device_key', 'transactions.device_id') | indent(8) }} as device_key,
        {{ key_or_default('locations.location_key', 'transactions.location_id') | indent(8) }} as location_key,
        {{ key_or_default('countries.country_key', 'transactions.country_code') | indent(8) }} as country_key,
        {{ key_or_default('currencies.currency_key', 'transactions.currency_code') | indent(8) }} as currency_key,
        {{ key_or_default('statuses.status_key', 'transactions.status_code') | indent(8) }} as status_key,
        coalesce(inputs.payment_profile_key, '{{ var("unknown_key") }}') as payment_profile_key,
        coalesce(business_dates.date_key, {{ var('unknown_key') }}) as business_date_key,
        coalesce(
            captured_dates.date_key,
            case
                when transactions.captured_at is null then {{ var('not_applicable_key') }}
                else {{ var('unknown_key') }}
            end
        ) as captured_date_key,
        inputs.row_version,
        transactions.transaction_id,
        transactions.source_system,
        transactions.source_status,
        transactions.status_code,
        transactions.currency_code,
        merchants.settlement_currency_code,
        '{{ var("reporting_currency") }}' as reporting_currency_code,
        transactions.quantity,
        transactions.currency_exponent,
        transactions.amount,
        transactions.tax,
        transactions.amount_excluding_tax,
        transactions.gross_amount,
        transactions.fee_amount,
        transactions.amount_minor,
        settlement_rates.rate_to_settlement as settlement_rate,
        coalesce(settlement_rates.rate_status, 'missing') as settlement_rate_status,
        settlement_rates.rate_source_date as settlement_rate_date,
        reporting_rates.rate_to_reporting as reporting_rate,
        coalesce(reporting_rates.rate_status, 'missing') as reporting_rate_status,
        reporting_rates.rate_source_date as reporting_rate_date,
        reporting_rates.rate_age_days as reporting_rate_age_days,
        transactions.is_ever_captured,
        transactions.has_invalid_amount,
        transactions.business_date,
        transactions.event_at_utc,
        transactions.captured_at,
        transactions.created_at,
        transactions.updated_at,
        transactions.loaded_at
    from transactions
    left join inputs on transactions.transaction_key = inputs.transaction_key
    left join customers
        on
            transactions.customer_id = customers.customer_id
            and transactions.event_at_utc >= customers.valid_from
            and transactions.event_at_utc < customers.valid_to
    left join merchants
        on
            transactions.merchant_id = merchants.merchant_id
            and transactions.event_at_utc >= merchants.valid_from
            and transactions.event_at_utc < merchants.valid_to
    left join products
        on
            transactions.product_id = products.product_id
            and transactions.event_at_utc >= products.valid_from
            and transactions.event_at_utc < products.valid_to
    left join payment_methods on transactions.payment_method_id = payment_methods.payment_method_id
    left join devices on transactions.device_id = devices.device_id
    left join locations on transactions.location_id = locations.location_id
    left join countries on transactions.country_code = countries.country_code
    left join currencies on transactions.currency_code = currencies.currency_code
    left join statuses on transactions.status_code = statuses.status_code
    left join dates as business_dates on transactions.business_date = business_dates.date_day
    left join dates as captured_dates on transactions.captured_date = captured_dates.date_day
    left join reporting_rates
        on
            transactions.currency_code = reporting_rates.currency_code
            and transactions.business_date = reporting_rates.rate_date
    left join settlement_rates
        on
            transactions.currency_code = settlement_rates.currency_code
            and transactions.business_date = settlement_rates.rate_date
            and merchants.settlement_currency_code = settlement_rates.settlement_currency_code
),

converted as (
    select
        *,
        {{ convert_money('amount', 'settlement_rate') }} as amount_settlement,
        {{ convert_money('tax', 'settlement_rate') }} as tax_settlement,
        {{ convert_money('gross_amount', 'settlement_rate') }} as gross_amount_settlement,
        {{ convert_money('fee_amount', 'settlement_rate') }} as fee_amount_settlement,
        {{ convert_money('amount', 'reporting_rate') }} as amount_reporting,
        {{ convert_money('tax', 'reporting_rate') }} as tax_reporting,
        {{ convert_money('gross_amount', 'reporting_rate') }} as gross_amount_reporting,
        {{ convert_money('fee_amount', 'reporting_rate') }} as fee_amount_reporting
    from joined
),

-- net is subtracted after the conversion, so that gross − fee = net to the last decimal in every currency
final as (
    select
        transaction_key,
        customer_key,
        customer_version_key,
        merchant_key,
        merchant_version_key,
        product_key,
        product_version_key,
        payment_method_key,
        device_key,
        location_key,
        country_key,
        currency_key,
        status_key,
        payment_profile_key,
        business_date_key,
        captured_date_key,
        row_version,
        transaction_id,
        source_system,
        source_status,
        status_code,
        currency_code,
        settlement_currency_code,
        reporting_currency_code,
        cast(quantity as integer) as quantity,
        cast(currency_exponent as smallint) as currency_exponent,
        amount,
        tax,
        amount_excluding_tax,
        gross_amount,
        fee_amount,
        cast(gross_amount - fee_amount as {{ type_money() }}) as net_amount,
        amount_minor,
        {%- for target in ['settlement', 'reporting'] %}
        amount_{{ target }},
        tax_{{ target }},
        gross_amount_{{ target }},
        fee_amount_{{ target }},
        cast(gross_amount_{{ target }} - fee_amount_{{ target }} as {{ type_money() }}) as net_amount_{{ target }},
        {{ target }}_rate,
        {{ target }}_rate_status,
        {{ target }}_rate_date,
        {%- endfor %}
        cast(reporting_rate_age_days as integer) as reporting_rate_age_days,
        is_ever_captured,
        has_invalid_amount,
        business_date,
        event_at_utc,
        captured_at,
        created_at,
        updated_at,
        loaded_at
    from converted
)

select * from final
