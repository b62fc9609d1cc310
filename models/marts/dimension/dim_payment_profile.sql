-- One row per combination of conditions under which payments were made: basis, consent, residence, PCI scope, SCA.
with

profiles as (
    select distinct
        payment_profile_key,
        lawful_basis,
        marketing_consent,
        data_residency,
        pci_scope,
        sca_outcome,
        sca_exemption
    from {{ ref('int_payment_profiles') }}
),

final as (
    select
        payment_profile_key,
        lawful_basis,
        marketing_consent,
        data_residency,
        pci_scope,
        sca_outcome,
        sca_exemption,
        marketing_consent = 'given' as has_marketing_consent,
        pci_scope = 'cardholder_data' as is_in_pci_scope,
        sca_exemption != 'none' as is_sca_exempted
    from profiles
    union all
    {{ default_members({
        'payment_profile_key': 'key',
        'lawful_basis': 'label',
        'marketing_consent': 'label',
        'data_residency': 'label',
        'pci_scope': 'label',
        'sca_outcome': 'label',
        'sca_exemption': 'label',
        'has_marketing_consent': null_of('boolean'),
        'is_in_pci_scope': null_of('boolean'),
        'is_sca_exempted': null_of('boolean'),
    }) | indent(4) }}
)

select * from final
