-- One row per merchant and business date: what its payments say about strong authentication and transfers of data.
{{ config(
    materialized='incremental',
    incremental_strategy='append',
    pre_hook="{{ remove_stale('int_payment_compliance_inputs') }}",
) }}
with

inputs as (
    select
        merchant_id,
        business_date,
        row_version
    from {{ ref('int_payment_compliance_inputs') }}
    {{ only_changed() }}
),

transactions as (
    select
        transaction_key,
        merchant_id,
        customer_id,
        payment_method_id,
        currency_code,
        amount,
        business_date,
        event_at_utc,
        loaded_at
    from {{ ref('int_transactions_unified') }}
    where
        (merchant_id, business_date) in (
            select
                inputs.merchant_id,
                inputs.business_date
            from inputs
        )
),

milestones as (
    select
        transaction_key,
        three_ds_outcome,
        sca_exemption,
        authorized_at
    from {{ ref('int_transaction_milestones') }}
    {% if is_incremental() -%}
    where transaction_key in (select transactions.transaction_key from transactions)
    {%- endif %}
),

payment_methods as (
    select
        payment_method_id,
        method_type,
        issuer_country_code
    from {{ ref('stg_oltp__payment_method') }}
),

locations as (
    select
        location_id,
        country_code
    from {{ ref('stg_oltp__location') }}
),

customers as (
    select
        customer_id,
        location_id,
        valid_from,
        valid_to
    from {{ ref('int_customer_versions') }}
),

merchants as (
    select
        merchant_id,
        location_id,
        valid_from,
        valid_to
    from {{ ref('int_merchant_versions') }}
),

jurisdictions as (
    select
        country_code,
        jurisdiction,
        valid_from,
        valid_to
    from {{ ref('int_country_jurisdictions') }}
),

adequacy as (
    select
        country_code,
        valid_from,
        coalesce(valid_to, cast('9999-12-31' as date)) as valid_to
    from {{ ref('country_memberships') }}
    where list_name = 'GDPR_ADEQUACY'
),

rates as (
    select
        currency_code,
        rate_date,
        rate_to_reporting
    from {{ ref('int_exchange_rates_filled') }}
),

-- every country as it was on the day: the shop's, the customer's, the card issuer's
placed as (
    select
        transactions.merchant_id,
        transactions.business_date,
        transactions.event_at_utc,
        transactions.loaded_at,
        merchant_locations.country_code as merchant_country_code,
        merchant_jurisdictions.jurisdiction as merchant_jurisdiction,
        customer_jurisdictions.jurisdiction as customer_jurisdiction,
        adequacy.country_code is not null as is_adequate,
        -- both banks in one area: article 97 binds them. An account-to-account transfer is authenticated elsewhere
        coalesce(
            payment_methods.method_type in ('card', 'wallet')
            and milestones.authorized_at is not null
            and merchant_jurisdictions.jurisdiction in ('EU', 'UK')
            and merchant_jurisdictions.jurisdiction = issuer_jurisdictions.jurisdiction,
            false
        ) as is_in_scope,
        coalesce(milestones.three_ds_outcome = 'authenticated', false) as is_authenticated,
        milestones.sca_exemption is not null as is_exempted,
        coalesce(milestones.sca_exemption = 'transaction_risk_analysis', false) as is_risk_analysis,
        {{ convert_money('transactions.amount', 'rates.rate_to_reporting') }} as amount_reporting
    from transactions
    left join milestones on transactions.transaction_key = milestones.transaction_key
    left join payment_methods on transactions.payment_method_id = payment_methods.payment_method_id
    left join merchants
        on
            transactions.merchant_id = merchants.merchant_id
            and transactions.event_at_utc >= merchants.valid_from
            and transactions.event_at_utc < merchants.valid_to
    left join locations as merchant_locations on merchants.location_id = merchant_locations.location_id
    left join customers
        on
            transactions.customer_id = customers.customer_id
            and transactions.event_at_utc >= customers.valid_from
            and transactions.event_at_utc < customers.valid_to
    left join locations as customer_locations on customers.location_id = customer_locations.location_id
    left join jurisdictions as merchant_jurisdictions
        on
            merchant_locations.country_code = merchant_jurisdictions.country_code
            and transactions.business_date >= merchant_jurisdictions.valid_from
            and transactions.business_date < merchant_jurisdictions.valid_to
    left join jurisdictions as customer_jurisdictions
        on
            customer_locations.country_code = customer_jurisdictions.country_code
            and transactions.business_date >= customer_jurisdictions.valid_from
            and transactions.business_date < customer_jurisdictions.valid_to
    left join jurisdictions as issuer_jurisdictions
        on
            payment_methods.issuer_country_code = issuer_jurisdictions.country_code
            and transactions.business_date >= issuer_jurisdictions.valid_from
            and transactions.business_date < issuer_jurisdictions.valid_to
    left join adequacy
        on
            merchant_locations.country_code = adequacy.country_code
            and transactions.business_date >= adequacy.valid_from
            and transactions.business_date < adequacy.valid_to
    left join rates
        on
            transactions.currency_code = rates.currency_code
            and transactions.business_date = rates.rate_date
),

counted as (
    select
        merchant_id,
        business_date,
        sum(case when is_in_scope then 1 else 0 end) as in_scope_count,
        sum(case when is_in_scope and (is_authenticated or is_exempted) then 1 else 0 end) as covered_count,
        sum(case when is_in_scope and is_risk_analysis then 1 else 0 end) as risk_analysis_count,
        -- the regulation's highest limit is 500 euros; an amount that cannot be converted is not shown to keep it
        sum(
            case
                when is_in_scope and is_risk_analysis and amount_reporting <= {{ var('risk_analysis_limit_eur') }}
                    then 1
                else 0
            end
        ) as risk_analysis_within_limit_count,
        sum(case when customer_jurisdiction = 'EU' then 1 else 0 end) as european_customer_count,
        sum(
            case
                when
                    customer_jurisdiction = 'EU'
                    and merchant_country_code is not null
                    and coalesce(merchant_jurisdiction, 'none') <> 'EU'
                    then 1
                else 0
            end
        ) as third_country_count,
        sum(
            case
                when
                    customer_jurisdiction = 'EU'
                    and merchant_country_code is not null
                    and coalesce(merchant_jurisdiction, 'none') <> 'EU'
                    and is_adequate
                    then 1
                else 0
            end
        ) as adequate_country_count,
        max(event_at_utc) as last_event_at,
        max(loaded_at) as loaded_at
    from placed
    group by merchant_id, business_date
),

final as (
    select
        {{ hash_key(['counted.merchant_id', 'counted.business_date']) }} as payment_compliance_key,
        counted.merchant_id,
        counted.business_date,
        inputs.row_version,
        counted.in_scope_count,
        counted.covered_count,
        counted.risk_analysis_count,
        counted.risk_analysis_within_limit_count,
        counted.european_customer_count,
        counted.third_country_count,
        counted.adequate_country_count,
        counted.last_event_at,
        counted.loaded_at
    from counted
    inner join inputs
        on
            counted.merchant_id = inputs.merchant_id
            and counted.business_date = inputs.business_date
)

select * from final
