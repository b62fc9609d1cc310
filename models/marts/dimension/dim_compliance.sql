-- One row per control, jurisdiction and version of the rules: what is asked, by whom it is answered, and when it holds.
with

final as (
    select
        {{ hash_key(['control_id', 'jurisdiction', 'version']) }} as compliance_key,
        control_id,
        regulation,
        instrument,
        reference,
        control_name,
        requirement,
        jurisdiction,
        version,
        owner,
        severity,
        subject_type,
        valid_from,
        -- the last day in force, and an open end, as one half-open interval: [valid_from, valid_to)
        coalesce(cast({{ dbt.dateadd('day', 1, 'valid_to') }} as date), cast('9999-12-31' as date)) as valid_to
    from {{ ref('compliance_controls') }}
    union all
    {{ default_members({
        'compliance_key': 'key',
        'control_id': 'label',
        'regulation': 'label',
        'instrument': null_of(type_text()),
        'reference': null_of(type_text()),
        'control_name': 'label',
        'requirement': null_of(type_text()),
        'jurisdiction': 'label',
        'version': 'label',
        'owner': null_of(type_text()),
        'severity': null_of(type_text()),
        'subject_type': null_of(type_text()),
        'valid_from': "cast('1900-01-01' as date)",
        'valid_to': "cast('9999-12-31' as date)",
    }) | indent(4) }}
)

select * from final
