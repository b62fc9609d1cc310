-- One row per payment status: the source's own description, and what the status means for the lifecycle.
with

statuses as (
    select
        status_description,
        is_final,
        status_code
    from {{ ref('stg_oltp__status') }}
),

definitions as (
    select
        status_name,
        lifecycle_stage,
        lifecycle_order,
        is_authorized_stage,
        is_captured_stage,
        is_end_of_life,
        status_code
    from {{ ref('status_definitions') }}
),

-- a status that the source adds before we have defined it is a member all the same
codes as (
    select status_code from statuses
    union
    select status_code from definitions
),

final as (
    select
        {{ member_key('codes.status_code') }} as status_key,
        codes.status_code,
        coalesce(definitions.status_name, codes.status_code) as status_name,
        statuses.status_description,
        definitions.lifecycle_stage,
        definitions.lifecycle_order,
        definitions.is_authorized_stage,
        definitions.is_captured_stage,
        coalesce(statuses.is_final, definitions.is_end_of_life) as is_final
    from codes
    left join statuses on codes.status_code = statuses.status_code
    left join definitions on codes.status_code = definitions.status_code
    union all
    {{ default_members({
        'status_key': 'key',
        'status_code': 'label',
        'status_name': 'label',
        'status_description': null_of(type_text()),
        'lifecycle_stage': null_of(type_text()),
        'lifecycle_order': null_of('smallint'),
        'is_authorized_stage': null_of('boolean'),
        'is_captured_stage': null_of('boolean'),
        'is_final': null_of('boolean'),
    }) | indent(4) }}
)

select * from final
