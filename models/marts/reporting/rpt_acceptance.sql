-- One row per business date, card brand, country and merchant category: how many attempts and payments were accepted.
{%- set outcomes = ['authorized', 'declined', 'blocked', 'incomplete'] %}
with

-- an attempt at a payment that we do not know has no shop and so no day; int_payment_issues counts it
attempts as (
    select
        business_date_key,
        country_key,
        payment_method_key,
        merchant_version_key,
        outcome,
        retry_group_outcome,
        is_final,
        is_ever_captured
    from {{ ref('fct_payment_attempt') }}
    where not is_orphan
),

payment_methods as (
    select
        payment_method_key,
        card_brand
    from {{ ref('dim_payment_method') }}
),

merchants as (
    select
        merchant_version_key,
        merchant_category_group
    from {{ ref('dim_merchant_history') }}
),

described as (
    select
        attempts.business_date_key,
        attempts.country_key,
        coalesce(payment_methods.card_brand, 'none') as card_brand,
        coalesce(merchants.merchant_category_group, 'Unknown') as merchant_category_group,
        attempts.outcome,
        attempts.retry_group_outcome,
        attempts.is_final,
        attempts.is_ever_captured
    from attempts
    left join payment_methods on attempts.payment_method_key = payment_methods.payment_method_key
    left join merchants on attempts.merchant_version_key = merchants.merchant_version_key
),

-- raw: every attempt. Deduplicated: the last attempt of each retry group, with the outcome of the group
counted as (
    select
        business_date_key,
        country_key,
        card_brand,
        merchant_category_group,
        cast(count(*) as bigint) as attempts,
        {%- for outcome in outcomes %}
        cast(sum(case when outcome = '{{ outcome }}' then 1 else 0 end) as bigint) as {{ outcome }}_attempts,
        {%- endfor %}
        cast(sum(case when is_final then 1 else 0 end) as bigint) as payments,
        {%- for outcome in outcomes %}
        cast(sum(case when is_final and retry_group_outcome = '{{ outcome }}' then 1 else 0 end) as bigint)
            as {{ outcome }}_payments,
        {%- endfor %}
        cast(sum(case when is_final and is_ever_captured then 1 else 0 end) as bigint) as captured_payments
    from described
    group by
        business_date_key,
        country_key,
        card_brand,
        merchant_category_group
),

divided as (
    select
        *,
        attempts - blocked_attempts - incomplete_attempts as authorization_denominator_raw,
        payments - blocked_payments - incomplete_payments as authorization_denominator
    from counted
),

final as (
    select
        business_date_key,
        country_key,
        card_brand,
        merchant_category_group,
        attempts,
        {%- for outcome in outcomes %}
        {{ outcome }}_attempts,
        {%- endfor %}
        authorization_denominator_raw,
        {{ rate('authorized_attempts', 'authorization_denominator_raw') | indent(8) }} as authorization_rate_raw,
        {{ rate('authorized_attempts', 'attempts') | indent(8) }} as conversion_rate_raw,
        {{ rate('blocked_attempts', 'attempts') | indent(8) }} as block_rate_raw,
        payments,
        {%- for outcome in outcomes %}
        {{ outcome }}_payments,
        {%- endfor %}
        captured_payments,
        authorization_denominator,
        {{ rate('authorized_payments', 'authorization_denominator') | indent(8) }} as authorization_rate,
        {{ rate('authorized_payments', 'payments') | indent(8) }} as conversion_rate,
        {{ rate('blocked_payments', 'payments') | indent(8) }} as block_rate
    from divided
)

select * from final
