-- One row per dispute event: inquiry, opening, evidence, win or loss, with the money it moved for the merchant.
with

events as (
    select
        event_id,
        {{ hash_key(['source_system', 'transaction_id', 'coalesce(dispute_id, event_id)']) }} as dispute_key,
        transaction_key,
        transaction_id,
        source_system,
        coalesce(dispute_id, event_id) as dispute_id,
        movement_id,
        event_type,
        currency_code,
        reason,
        actor,
        abs(amount) as amount,
        has_invalid_amount,
        occurred_at,
        loaded_at
    from {{ ref('int_payment_events_deduped') }}
    where event_type in (
        'dispute.inquiry', 'dispute.opened', 'dispute.evidence_submitted', 'dispute.won', 'dispute.lost'
    )
),

disputes as (
    select
        dispute_key,
        opened_event_id,
        won_event_id,
        dispute_status,
        dispute_reason_code,
        network,
        dispute_amount,
        returned_amount,
        is_fraud,
        is_won,
        is_inquiry_only,
        is_orphan,
        has_currency_mismatch,
        loaded_at
    from {{ ref('int_disputes') }}
),

currencies as (
    select
        currency_key,
        currency_code,
        currency_exponent
    from {{ ref('dim_currency') }}
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
        business_date,
        loaded_at
    from {{ ref('fct_sales') }}
),

{%- for entity in ['customer', 'merchant', 'product'] %}

{{ entity }}_versions as (
    select
        {{ entity }}_version_key,
        {{ entity }}_key,
        {%- if entity == 'merchant' %}
        {{ known_time_zone('time_zone') }} as time_zone,
        {%- endif %}
        valid_from,
        valid_to
    from {{ ref('dim_' ~ entity ~ '_history') }}
),
{%- endfor %}

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

-- only an opening takes money and only a win brings it back, each of them once
moved as (
    select
        events.event_id,
        events.dispute_key,
        events.transaction_key,
        events.transaction_id,
        events.source_system,
        events.dispute_id,
        events.movement_id,
        events.event_type,
        disputes.dispute_status,
        disputes.dispute_reason_code,
        disputes.network,
        events.currency_code,
        events.reason,
        events.actor,
        events.amount,
        case
            when events.event_id = disputes.opened_event_id then -disputes.dispute_amount
            when events.event_id = disputes.won_event_id then disputes.returned_amount
            else 0
        end as signed_amount,
        disputes.is_fraud,
        disputes.is_won as is_dispute_won,
        disputes.is_inquiry_only,
        disputes.is_orphan,
        disputes.has_currency_mismatch,
        events.has_invalid_amount,
        events.occurred_at,
        greatest(events.loaded_at, disputes.loaded_at) as loaded_at
    from events
    inner join disputes on events.dispute_key = disputes.dispute_key
),

-- the versions valid when the event happened, which need not be those of the sale
joined as (
    select
        moved.event_id,
        moved.dispute_key,
        {{ key_or_default('sales.transaction_key', 'moved.transaction_id') | indent(8) }} as transaction_key,
        {%- for entity in ['customer', 'merchant', 'product'] %}
        {{ key_or_default('sales.' ~ entity ~ '_key', 'moved.transaction_id') | indent(8) }} as {{ entity }}_key,
        {{ key_or_default(entity ~ '_versions.' ~ entity ~ '_version_key', 'moved.transaction_id') | indent(8) }}
            as {{ entity }}_version_key,
        {%- endfor %}
        {%- for member in ['payment_method', 'device', 'location', 'country'] %}
        {{ key_or_default('sales.' ~ member ~ '_key', 'moved.transaction_id') | indent(8) }} as {{ member }}_key,
        {%- endfor %}
        {{ key_or_default('currencies.currency_key', 'moved.currency_code') | indent(8) }} as currency_key,
        coalesce(sales.business_date_key, {{ var('unknown_key') }}) as charge_date_key,
        moved.dispute_id,
        moved.movement_id,
        moved.transaction_id,
        moved.source_system,
        moved.event_type,
        moved.dispute_status,
        moved.dispute_reason_code,
        moved.reason,
        moved.actor,
        moved.network,
        moved.currency_code,
        currencies.currency_exponent,
        moved.amount,
        moved.signed_amount,
        moved.is_fraud,
        moved.is_dispute_won,
        moved.is_inquiry_only,
        moved.is_orphan,
        moved.has_currency_mismatch,
        moved.has_invalid_amount,
        {{ local_date('moved.occurred_at', 'merchant_versions.time_zone') }} as business_date,
        sales.business_date as charge_date,
        moved.occurred_at as event_at_utc,
        greatest(moved.loaded_at, coalesce(sales.loaded_at, moved.loaded_at)) as loaded_at
    from moved
    left join sales on moved.transaction_key = sales.transaction_key
    {%- for entity in ['customer', 'merchant', 'product'] %}
    left join {{ entity }}_versions
        on
            sales.{{ entity }}_key = {{ entity }}_versions.{{ entity }}_key
            and moved.occurred_at >= {{ entity }}_versions.valid_from
            and moved.occurred_at < {{ entity }}_versions.valid_to
    {%- endfor %}
    left join currencies on moved.currency_code = currencies.currency_code
),

priced as (
    select
        joined.*,
        coalesce(dates.date_key, {{ var('unknown_key') }}) as business_date_key,
        reporting_rates.rate_to_reporting as reporting_rate,
        coalesce(reporting_rates.rate_status, 'missing') as reporting_rate_status,
        reporting_rates.rate_source_date as reporting_rate_date
    from joined
    left join dates on joined.business_date = dates.date_day
    left join reporting_rates
        on
            joined.currency_code = reporting_rates.currency_code
            and joined.business_date = reporting_rates.rate_date
),

final as (
    select
        {{ hash_key(['event_id']) }} as dispute_event_key,
        dispute_key,
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
        charge_date_key,
        event_id,
        dispute_id,
        movement_id,
        transaction_id,
        source_system,
        event_type,
        dispute_status,
        dispute_reason_code,
        reason,
        actor,
        network,
        currency_code,
        '{{ var("reporting_currency") }}' as reporting_currency_code,
        currency_exponent,
        cast({{ days_between('charge_date', 'business_date') }} as integer) as days_since_charge,
        cast(amount as {{ type_money() }}) as amount,
        cast(signed_amount as {{ type_money() }}) as signed_amount,
        {{ to_minor_units('signed_amount', 'currency_exponent') | indent(8) }} as signed_amount_minor,
        {{ convert_money('signed_amount', 'reporting_rate') }} as signed_amount_reporting,
        reporting_rate,
        reporting_rate_status,
        reporting_rate_date,
        is_fraud,
        is_dispute_won,
        is_inquiry_only,
        is_orphan,
        has_currency_mismatch,
        has_invalid_amount,
        business_date,
        event_at_utc,
        event_at_utc as updated_at,
        loaded_at
    from priced
)

select * from final
