-- One row per subject of the rules: a fingerprint of everything its statuses stand on. When it changes, they do.
with

controls as (
    select
        {{ hash_key(['control_id', 'jurisdiction', 'version']) }} as compliance_key,
        valid_from,
        coalesce(cast({{ dbt.dateadd('day', 1, 'valid_to') }} as date), cast('9999-12-31' as date)) as valid_to
    from {{ ref('compliance_controls') }}
),

subjects as (
    select
        subject_type,
        subject_id,
        jurisdiction,
        valid_from,
        valid_to,
        loaded_at
    from {{ ref('int_compliance_subjects') }}
),

evidence as (
    select
        subject_type,
        subject_id,
        count(*) as observations_count,
        sum({{ fingerprint(['evidence_key', 'status', utc_microseconds('loaded_at')]) }}) as observations_sum
    from {{ ref('int_compliance_evidence') }}
    group by subject_type, subject_id
),

-- the version of the subject that was valid at the time stands beside its status
member_versions as (
    select
        'customer' as subject_type,
        customer_id as subject_id,
        valid_from,
        valid_to
    from {{ ref('int_customer_versions') }}

    union all

    select
        'merchant' as subject_type,
        merchant_id as subject_id,
        valid_from,
        valid_to
    from {{ ref('int_merchant_versions') }}
),

members as (
    select
        subject_type,
        subject_id,
        count(*) as versions_count,
        sum({{ fingerprint([utc_microseconds('valid_from'), utc_microseconds('valid_to')]) }}) as versions_sum
    from member_versions
    group by subject_type, subject_id
),

known as (
    select {{ utc_date('max(finished_at)') }} as known_until
    from {{ ref('stg_ops__load_manifest') }}
),

-- the day of the last load moves with every run, and moves nothing but what begins or ends on the days it passes
controls_in_force as (
    select
        count(*) as controls_count,
        sum({{ fingerprint([
            'controls.compliance_key', 'case when controls.valid_to > known.known_until then 1 else 0 end',
        ]) }}) as controls_sum
    from controls
    cross join known
    where controls.valid_from <= known.known_until
),

duties as (
    select
        subjects.subject_type,
        subjects.subject_id,
        count(*) as duties_count,
        sum({{ fingerprint([
            'subjects.jurisdiction',
            'subjects.valid_from',
            'subjects.valid_to',
            'case when subjects.valid_to > known.known_until then 1 else 0 end',
            utc_microseconds('subjects.loaded_at'),
        ]) }}) as duties_sum
    from subjects
    cross join known
    where subjects.valid_from <= known.known_until
    group by subjects.subject_type, subjects.subject_id
),

final as (
    select
        duties.subject_type,
        duties.subject_id,
        {{ hash_key([
            'duties.subject_type',
            'duties.subject_id',
            'duties.duties_count',
            'duties.duties_sum',
            'evidence.observations_count',
            'evidence.observations_sum',
            'members.versions_count',
            'members.versions_sum',
            'controls_in_force.controls_count',
            'controls_in_force.controls_sum',
        ]) }} as row_version
    from duties
    cross join controls_in_force
    left join evidence
        on
            duties.subject_type = evidence.subject_type
            and duties.subject_id = evidence.subject_id
    left join members
        on
            duties.subject_type = members.subject_type
            and duties.subject_id = members.subject_id
)

select * from final
