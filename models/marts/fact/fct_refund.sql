-- One row per refund, succeeded or failed: what went back, what of the capture was left, and what exchange rates did.
with

refunds as (
    select
        refund_key,
        transaction_key,
        refund_id,
        event_id,
        source_system,
        transaction_id,
        refund_status,
        reason,
        actor,
        currency_code,
        refund_number,
        currency_exponent,
        amount,
        amount_minor,
        captured_amount,
        refunded_before_amount,
        refundable_before_amount,
        is_succeeded,
        is_full,
        is_completing,
        has_excess,
        has_currency_mismatch,
        has_conflicting_outcomes,
        has_invalid_amount,
        is_orphan,
        business_date,
        payment_business_date,
        event_at_utc,
        last_event_at,
        loaded_at
    from {{ ref('int_refunds') }}
),

sales as (
    select
        transaction_key,
        customer_key,
        merchant_key,
        product_key,
        payment_method_key,
        device_key,
        location_key,
        country_key,
        business_date_key,
        reporting_rate,
        loaded_at
    from {{ ref('fct_sales') }}
),

{%- for entity in ['customer', 'merchant', 'product'] %}

{{ entity }}_versions as (
    select
        {{ entity }}_version_key,
        {{ entity }}_key,
        valid_from,
        valid_to
    from {{ ref('dim_' ~ entity ~ '_history') }}
),
{%- endfor %}

currencies as (
    select
        currency_key,
        currency_code
    from {{ ref('dim_currency') }}
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
        rate_source_date
    from {{ ref('int_exchange_rates_filled') }}
),

-- the versions valid when the refund was made, which need not be those of the sale
joined as (
    select
        refunds.refund_key,
        {{ key_or_default('sales.transaction_key', 'refunds.transaction_id') | indent(8) }} as transaction_key,
        {%- for entity in ['customer', 'merchant', 'product'] %}
        {{ key_or_default('sales.' ~ entity ~ '_key', 'refunds.transaction_id') | indent(8) }} as {{ entity }}_key,
        {{ key_or_default(entity ~ '_versions.' ~ entity ~ '_version_key', 'refunds.transaction_id') | indent(8) }}
            as {{ entity }}_version_key,
        {%- endfor %}
        {%- for member in ['payment_method', 'device', 'location', 'country'] %}
        {{ key_or_default('sales.' ~ member ~ '_key', 'refunds.transaction_id') | indent(8) }} as {{ member }}_key,
        {%- endfor %}
        {{ key_or_default('currencies.currency_key', 'refunds.currency_code') | indent(8) }} as currency_key,
        coalesce(dates.date_key, {{ var('unknown_key') }}) as business_date_key,
        coalesce(sales.business_date_key, {{ var('unknown_key') }}) as payment_date_key,
        refunds.refund_id,
        refunds.event_id,
        refunds.transaction_id,
        refunds.source_system,
        refunds.refund_status,
        refunds.reason,
        refunds.actor,
        refunds.currency_code,
        refunds.refund_number,
        refunds.currency_exponent,
        refunds.amount,
        refunds.amount_minor,
        case when refunds.is_succeeded then -refunds.amount else 0 end as signed_amount,
        refunds.captured_amount,
        refunds.refunded_before_amount,
        refunds.refundable_before_amount,
        reporting_rates.rate_to_reporting as reporting_rate,
        coalesce(reporting_rates.rate_status, 'missing') as reporting_rate_status,
        reporting_rates.rate_source_date as reporting_rate_date,
        -- a rate is for the currency of the payment: a refund in another one was booked at none
        case when not refunds.has_currency_mismatch then sales.reporting_rate end as payment_reporting_rate,
        refunds.is_succeeded,
        refunds.is_full,
        refunds.is_completing,
        refunds.has_excess,
        refunds.has_currency_mismatch,
        refunds.has_conflicting_outcomes,
        refunds.has_invalid_amount,
        refunds.is_orphan,
        refunds.business_date,
        refunds.payment_business_date,
        refunds.event_at_utc,
        refunds.last_event_at,
        greatest(refunds.loaded_at, coalesce(sales.loaded_at, refunds.loaded_at)) as loaded_at
    from refunds
    left join sales on refunds.transaction_key = sales.transaction_key
    {%- for entity in ['customer', 'merchant', 'product'] %}
    left join {{ entity }}_versions
        on
            sales.{{ entity }}_key = {{ entity }}_versions.{{ entity }}_key
            and refunds.event_at_utc >= {{ entity }}_versions.valid_from
            and refunds.event_at_utc < {{ entity }}_versions.valid_to
    {%- endfor %}
    left join currencies on refunds.currency_code = currencies.currency_code
    left join dates on refunds.business_date = dates.date_day
    left join reporting_rates
        on
            refunds.currency_code = reporting_rates.currency_code
            and refunds.business_date = reporting_rates.rate_date
),

converted as (
    select
        *,
        {{ convert_money('amount', 'reporting_rate') }} as amount_reporting,
        {{ convert_money('signed_amount', 'reporting_rate') }} as signed_amount_reporting,
        {{ convert_money('amount', 'payment_reporting_rate') }} as amount_reporting_at_payment_rate
    from joined
),

-- 100 USD booked at 1.35 CAD and given back at 1.40: 135 - 140, a loss of 5 CAD. What failed was never exchanged
final as (
    select
        refund_key,
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
        business_date_key,
        payment_date_key,
        refund_id,
        event_id,
        transaction_id,
        source_system,
        refund_status,
        reason,
        actor,
        currency_code,
        '{{ var("reporting_currency") }}' as reporting_currency_code,
        refund_number,
        currency_exponent,
        cast({{ days_between('payment_business_date', 'business_date') }} as integer) as days_to_refund,
        amount,
        cast(signed_amount as {{ type_money() }}) as signed_amount,
        amount_minor,
        captured_amount,
        refunded_before_amount,
        refundable_before_amount,
        amount_reporting,
        signed_amount_reporting,
        amount_reporting_at_payment_rate,
        cast(
            case when is_succeeded then amount_reporting_at_payment_rate - amount_reporting end as {{ type_money() }}
        ) as exchange_result_reporting,
        reporting_rate,
        reporting_rate_status,
        reporting_rate_date,
        payment_reporting_rate,
        is_succeeded,
        is_full,
        is_completing,
        has_excess,
        has_currency_mismatch,
        has_conflicting_outcomes,
        has_invalid_amount,
        is_orphan,
        business_date,
        event_at_utc,
        last_event_at as updated_at,
        loaded_at
    from converted
)

select * from final
