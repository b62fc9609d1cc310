-- One row per payment: the conditions under which it was made, and the key of that combination.
{{ config(
    materialized='incremental',
    incremental_strategy='append',
    pre_hook="{{ remove_stale('int_transactions_unified') }}",
) }}
{%- set profile = [
    'lawful_basis', 'marketing_consent', 'data_residency', 'pci_scope', 'sca_outcome', 'sca_exemption',
] %}
with

transactions as (
    select
        transaction_key,
        row_version,
        source_system,
        customer_id,
        payment_method_id,
        status_code,
        event_at_utc,
        loaded_at
    from {{ ref('int_transactions_unified') }}
    {{ only_changed() }}
),

customers as (
    select
        customer_id,
        location_id,
        has_marketing_consent,
        valid_from,
        valid_to,
        loaded_at
    from {{ ref('int_customer_versions') }}
),

locations as (
    select
        location_id,
        country_code
    from {{ ref('stg_oltp__location') }}
),

countries as (
    select country_code
    from {{ ref('countries') }}
),

memberships as (
    select
        country_code,
        list_name,
        valid_from,
        valid_to
    from {{ ref('country_memberships') }}
),

payment_methods as (
    select
        payment_method_id,
        method_type
    from {{ ref('stg_oltp__payment_method') }}
),

milestones as (
    select
        transaction_key,
        three_ds_outcome,
        sca_exemption
    from {{ ref('int_transaction_milestones') }}
    {% if is_incremental() -%}
    where transaction_key in (select transaction_key from transactions)
    {%- endif %}
),

-- consent and residence are those of the customer at the time of the payment, not of today
described as (
    select
        transactions.transaction_key,
        transactions.row_version,
        transactions.source_system,
        -- GDPR 6(1)(b), and 6(1)(f) with recital 47 for what is kept only because it was stopped as fraud
        case
            when transactions.status_code = 'blocked' then 'legitimate_interests'
            else 'contract'
        end as lawful_basis,
        case
            when customers.has_marketing_consent then 'given'
            when not customers.has_marketing_consent then 'not_given'
            else 'unknown'
        end as marketing_consent,
        case
            when eea.country_code is not null then 'eea'
            when adequacy.country_code is not null then 'adequate_country'
            when countries.country_code is not null then 'third_country'
            else 'unknown'
        end as data_residency,
        case
            when payment_methods.method_type = 'card' then 'cardholder_data'
            when payment_methods.method_type = 'wallet' then 'network_token'
            when payment_methods.method_type is not null then 'out_of_scope'
            else 'unknown'
        end as pci_scope,
        coalesce(milestones.three_ds_outcome, 'not_requested') as sca_outcome,
        coalesce(milestones.sca_exemption, 'none') as sca_exemption,
        {{ latest_of(['transactions.loaded_at', 'customers.loaded_at']) | indent(8) }} as loaded_at
    from transactions
    left join customers
        on
            transactions.customer_id = customers.customer_id
            and transactions.event_at_utc >= customers.valid_from
            and transactions.event_at_utc < customers.valid_to
    left join locations on customers.location_id = locations.location_id
    left join countries on locations.country_code = countries.country_code
    {%- for name, list in {'eea': 'EEA', 'adequacy': 'GDPR_ADEQUACY'}.items() %}
    left join memberships as {{ name }}
        on
            countries.country_code = {{ name }}.country_code
            and {{ name }}.list_name = '{{ list }}'
            and {{ utc_date('transactions.event_at_utc') }} >= {{ name }}.valid_from
            and ({{ name }}.valid_to is null or {{ utc_date('transactions.event_at_utc') }} < {{ name }}.valid_to)
    {%- endfor %}
    left join payment_methods on transactions.payment_method_id = payment_methods.payment_method_id
    left join milestones on transactions.transaction_key = milestones.transaction_key
),

final as (
    select
        transaction_key,
        {{ hash_key(profile) }} as payment_profile_key,
        row_version,
        source_system,
        {%- for attribute in profile %}
        {{ attribute }},
        {%- endfor %}
        loaded_at
    from described
)

select * from final
