-- One row per currency of ISO 4217, withdrawn ones included, with the number of decimals of its minor unit.
with

currencies as (
    select
        currency_code,
        numeric_code,
        currency_name,
        exponent,
        is_active,
        is_payment_currency,
        withdrawn_on
    from {{ ref('currency_exponents') }}
),

source_currencies as (
    select currency_code
    from {{ ref('stg_oltp__currency') }}
),

final as (
    select
        {{ member_key('currencies.currency_code') }} as currency_key,
        currencies.currency_code,
        currencies.numeric_code,
        currencies.currency_name,
        currencies.exponent as currency_exponent,
        source_currencies.currency_code is not null as is_accepted,
        currencies.is_active,
        currencies.is_payment_currency,
        currencies.withdrawn_on
    from currencies
    left join source_currencies on currencies.currency_code = source_currencies.currency_code
    union all
    {{ default_members({
        'currency_key': 'key',
        'currency_code': 'label',
        'numeric_code': null_of(type_text()),
        'currency_name': 'label',
        'currency_exponent': null_of('smallint'),
        'is_accepted': 'false',
        'is_active': 'false',
        'is_payment_currency': 'false',
        'withdrawn_on': null_of('date'),
    }) | indent(4) }}
)

select * from final
