-- One row per subject, version of a control that applies to it, and first day of a status: [valid_from, valid_to).
{{ config(
    materialized='incremental',
    incremental_strategy='append',
    pre_hook="{{ remove_stale('int_compliance_inputs') }}",
) }}
with

inputs as (
    select
        subject_type,
        subject_id,
        row_version
    from {{ ref('int_compliance_inputs') }}
    {{ only_changed() }}
),

controls as (
    select
        control_id,
        jurisdiction,
        version,
        {{ hash_key(['control_id', 'jurisdiction', 'version']) }} as compliance_key,
        valid_from,
        coalesce(cast({{ dbt.dateadd('day', 1, 'valid_to') }} as date), cast('9999-12-31' as date)) as valid_to
    from {{ ref('compliance_controls') }}
),

rules as (
    select
        control_id,
        jurisdiction,
        evidence_kind,
        subject_type
    from {{ ref('compliance_evidence_rules') }}
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
    {% if is_incremental() -%}
    where (subject_type, subject_id) in (select inputs.subject_type, inputs.subject_id from inputs)
    {%- endif %}
),

evidence as (
    select
        evidence_key,
        subject_type,
        subject_id,
        evidence_kind,
        status,
        evidence_text,
        source_model,
        observed_at,
        {{ utc_date('observed_at') }} as observed_date,
        loaded_at,
        -- the last word of a day is that day's; of two words at once the one that says less
        row_number() over (
            partition by subject_type, subject_id, evidence_kind, {{ utc_date('observed_at') }}
            order by
                observed_at desc,
                case status
                    when 'not_met' then 1
                    when 'no_evidence' then 2
                    when 'met' then 3
                    else 4
                end asc,
                evidence_key asc
        ) as recency
    from {{ ref('int_compliance_evidence') }}
    {% if is_incremental() -%}
    where (subject_type, subject_id) in (select inputs.subject_type, inputs.subject_id from inputs)
    {%- endif %}
),

known as (
    select {{ utc_date('max(finished_at)') }} as known_until
    from {{ ref('stg_ops__load_manifest') }}
),

-- a control that no evidence answers for is the platform's to show, once: not one row per customer
duties as (
    select
        subjects.subject_type,
        subjects.subject_id,
        controls.compliance_key,
        rules.evidence_kind,
        greatest(subjects.valid_from, controls.valid_from) as valid_from,
        least(subjects.valid_to, controls.valid_to) as valid_to,
        subjects.loaded_at
    from controls
    left join rules
        on
            controls.control_id = rules.control_id
            and controls.jurisdiction = rules.jurisdiction
    inner join subjects
        on
            controls.jurisdiction = subjects.jurisdiction
            and coalesce(rules.subject_type, 'platform') = subjects.subject_type
            and controls.valid_to > subjects.valid_from
            and controls.valid_from < subjects.valid_to
    cross join known
    where greatest(subjects.valid_from, controls.valid_from) <= known.known_until
),

-- before its first observation a subject has no evidence
words as (
    select
        subject_type,
        subject_id,
        evidence_kind,
        status,
        evidence_key,
        evidence_text,
        source_model,
        observed_at,
        observed_date,
        loaded_at
    from evidence
    where recency = 1

    union all

    select distinct
        subject_type,
        subject_id,
        evidence_kind,
        'no_evidence' as status,
        cast(null as {{ type_text() }}) as evidence_key,
        'nothing observed yet' as evidence_text,
        cast(null as {{ type_text() }}) as source_model,
        cast(null as {{ type_utc_timestamp() }}) as observed_at,
        cast('1900-01-01' as date) as observed_date,
        cast(null as {{ type_utc_timestamp() }}) as loaded_at
    from duties
    where evidence_kind is not null
),

word_intervals as (
    select
        subject_type,
        subject_id,
        evidence_kind,
        status,
        evidence_key,
        evidence_text,
        source_model,
        observed_at,
        observed_date as valid_from,
        coalesce(
            lead(observed_date) over (
                partition by subject_type, subject_id, evidence_kind
                order by observed_date
            ),
            cast('9999-12-31' as date)
        ) as valid_to,
        loaded_at
    from words
),

judged as (
    select
        duties.subject_type,
        duties.subject_id,
        duties.compliance_key,
        duties.evidence_kind,
        coalesce(word_intervals.status, 'no_evidence') as status,
        word_intervals.evidence_key,
        coalesce(word_intervals.evidence_text, 'no rule of evidence') as evidence_text,
        word_intervals.source_model,
        word_intervals.observed_at,
        greatest(duties.valid_from, coalesce(word_intervals.valid_from, duties.valid_from)) as valid_from,
        least(duties.valid_to, coalesce(word_intervals.valid_to, duties.valid_to)) as valid_to,
        greatest(duties.loaded_at, coalesce(word_intervals.loaded_at, duties.loaded_at)) as loaded_at
    from duties
    left join word_intervals
        on
            duties.subject_type = word_intervals.subject_type
            and duties.subject_id = word_intervals.subject_id
            and duties.evidence_kind = word_intervals.evidence_kind
            and duties.valid_to > word_intervals.valid_from
            and duties.valid_from < word_intervals.valid_to
),

compared as (
    select
        *,
        case
            when
                status = lag(status) over (partition by subject_type, subject_id, compliance_key order by valid_from)
                and valid_from
                = lag(valid_to) over (partition by subject_type, subject_id, compliance_key order by valid_from)
                then 0
            else 1
        end as begins
    from judged
),

numbered as (
    select
        *,
        sum(begins) over (
            partition by subject_type, subject_id, compliance_key
            order by valid_from
            rows between unbounded preceding and current row
        ) as stretch
    from compared
),

stretched as (
    select
        *,
        max(valid_to) over (partition by subject_type, subject_id, compliance_key, stretch) as stretch_valid_to
    from numbered
),

-- a status that goes on is one row, however often it is confirmed; the first observation stands for it
final as (
    select
        {{ hash_key([
            'stretched.subject_type', 'stretched.subject_id', 'stretched.compliance_key', 'stretched.valid_from',
        ]) }} as compliance_status_key,
        {{ hash_key(['stretched.subject_type', 'stretched.subject_id', 'stretched.compliance_key']) }} as duty_key,
        inputs.row_version,
        stretched.subject_type,
        stretched.subject_id,
        stretched.compliance_key,
        stretched.evidence_kind,
        stretched.status,
        stretched.evidence_key,
        stretched.evidence_text,
        stretched.source_model,
        stretched.observed_at,
        stretched.valid_from,
        stretched.stretch_valid_to as valid_to,
        stretched.stretch_valid_to > known.known_until as is_current,
        stretched.loaded_at
    from stretched
    cross join known
    inner join inputs
        on
            stretched.subject_type = inputs.subject_type
            and stretched.subject_id = inputs.subject_id
    where stretched.begins = 1
)

select * from final
