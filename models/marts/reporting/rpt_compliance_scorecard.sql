-- One row per month end (or the last known day), version of a control and type of subject: how many met it.
with

statuses as (
    select
        compliance_key,
        subject_type,
        status,
        business_date,
        status_until_date
    from {{ ref('fct_compliance_status') }}
),

controls as (
    select
        compliance_key,
        control_id,
        regulation,
        control_name,
        jurisdiction,
        version,
        severity,
        owner
    from {{ ref('dim_compliance') }}
),

known as (
    select {{ utc_date('max(finished_at)') }} as known_until
    from {{ ref('stg_ops__load_manifest') }}
),

first_days as (
    select min(business_date) as first_date
    from statuses
),

dates as (
    select
        date_key,
        date_day,
        first_of_month,
        last_of_month
    from {{ ref('dim_date') }}
),

months as (
    select distinct
        dates.first_of_month,
        least(dates.last_of_month, known.known_until) as as_of_date
    from dates
    cross join known
    cross join first_days
    where
        dates.date_day >= first_days.first_date
        and dates.date_day <= known.known_until
),

-- a status adds one on the day it begins and takes one away on the day it ends: no day in between has to be written out
changes as (
    select
        compliance_key,
        subject_type,
        status,
        cast({{ dbt.date_trunc('month', 'business_date') }} as date) as month_start,
        1 as subjects_change
    from statuses

    union all

    select
        statuses.compliance_key,
        statuses.subject_type,
        statuses.status,
        cast({{ dbt.date_trunc('month', 'statuses.status_until_date') }} as date) as month_start,
        -1 as subjects_change
    from statuses
    cross join known
    where statuses.status_until_date <= known.known_until
),

monthly as (
    select
        compliance_key,
        subject_type,
        month_start,
        sum(case when status = 'met' then subjects_change else 0 end) as met_change,
        sum(case when status = 'not_met' then subjects_change else 0 end) as not_met_change,
        sum(case when status = 'not_applicable' then subjects_change else 0 end) as not_applicable_change,
        sum(case when status = 'no_evidence' then subjects_change else 0 end) as no_evidence_change
    from changes
    group by compliance_key, subject_type, month_start
),

judged_controls as (
    select
        compliance_key,
        subject_type,
        min(month_start) as first_month
    from monthly
    group by compliance_key, subject_type
),

running as (
    select
        judged_controls.compliance_key,
        judged_controls.subject_type,
        {%- for status in ['met', 'not_met', 'not_applicable', 'no_evidence'] %}
        sum(coalesce(monthly.{{ status }}_change, 0)) over (
            partition by judged_controls.compliance_key, judged_controls.subject_type
            order by months.first_of_month
            rows between unbounded preceding and current row
        ) as {{ status }},
        {%- endfor %}
        months.as_of_date
    from judged_controls
    inner join months on judged_controls.first_month <= months.first_of_month
    left join monthly
        on
            judged_controls.compliance_key = monthly.compliance_key
            and judged_controls.subject_type = monthly.subject_type
            and months.first_of_month = monthly.month_start
),

counted as (
    select
        *,
        met + not_met + not_applicable + no_evidence as subjects,
        -- a shop and the platform are no natural persons; a customer and a card on file are
        case
            when subject_type in ('customer', 'payment_method') then met + not_met + not_applicable + no_evidence
            else 10
        end as group_size
    from running
),

final as (
    select
        {{ hash_key(['counted.as_of_date', 'counted.compliance_key', 'counted.subject_type']) }}
            as compliance_scorecard_key,
        counted.compliance_key,
        coalesce(dates.date_key, {{ var('unknown_key') }}) as date_key,
        controls.regulation,
        controls.control_id,
        controls.control_name,
        controls.jurisdiction,
        controls.version,
        controls.severity,
        controls.owner,
        counted.subject_type,
        {%- for measure in ['subjects', 'met', 'not_met', 'not_applicable', 'no_evidence'] %}
        cast({{ suppress_small_groups('counted.' ~ measure, 'counted.group_size') }} as bigint)
            as {{ measure if measure == 'subjects' else 'subjects_' ~ measure }},
        {%- endfor %}
        cast({{ suppress_small_groups('counted.met + counted.not_met', 'counted.group_size') }} as bigint)
            as subjects_judged,
        counted.as_of_date
    from counted
    inner join controls on counted.compliance_key = controls.compliance_key
    left join dates on counted.as_of_date = dates.date_day
    where counted.subjects > 0
)

select * from final
