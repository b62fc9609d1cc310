-- One row per payment method on file; a card shows its first six and last four digits.
with

final as (
    select
        {{ member_key('payment_method_id') }} as payment_method_key,
        payment_method_id,
        method_type,
        card_brand,
        {{ mask_pan('card_number_bin', 'card_number_last4') }} as masked_card_number,
        card_expiry,
        issuer_country_code,
        wallet,
        created_at,
        updated_at
    from {{ ref('stg_oltp__payment_method') }}
    union all
    {{ default_members({
        'payment_method_key': 'key',
        'payment_method_id': 'label',
        'method_type': 'label',
        'card_brand': null_of(type_text()),
        'masked_card_number': null_of(type_text()),
        'card_expiry': null_of(type_text()),
        'issuer_country_code': null_of(type_text()),
        'wallet': null_of(type_text()),
        'created_at': null_of(type_utc_timestamp()),
        'updated_at': null_of(type_utc_timestamp()),
    }) | indent(4) }}
)

select * from final
