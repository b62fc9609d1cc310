-- One row per payout: what was announced, to whom, and whether the bank sent it back.
with

events as (
    select
        event_id,
        coalesce(payout_id, event_id) as payout_id,
        merchant_id,
        source_system,
        event_type,
        currency_code,
        reason,
        amount,
        arrival_date,
        occurred_at,
        loaded_at
    from {{ ref('int_payment_events_deduped') }}
    where event_type in ('payout.paid', 'payout.failed')
),

currencies as (
    select
        currency_code,
        exponent as currency_exponent
    from {{ ref('currency_exponents') }}
),

merchants as (
    select
        merchant_id,
        {{ known_time_zone('time_zone') }} as time_zone,
        valid_from,
        valid_to,
        loaded_at
    from {{ ref('int_merchant_versions') }}
),

merchant_landings as (
    select
        merchant_id,
        count(*) as versions_count,
        max(loaded_at) as loaded_at
    from merchants
    group by merchant_id
),

-- an outcome told twice under two event ids is one outcome: the first telling counts
ranked as (
    select
        *,
        row_number() over (partition by payout_id, event_type order by occurred_at, event_id) as telling
    from events
),

{%- set attributes = ['merchant_id', 'source_system', 'currency_code', 'amount', 'arrival_date'] %}

gathered as (
    select
        payout_id,
        max(case when event_type = 'payout.paid' and telling = 1 then event_id end) as paid_event_id,
        max(case when event_type = 'payout.failed' and telling = 1 then event_id end) as failed_event_id,
        {%- for attribute in attributes %}
        coalesce(
            max(case when event_type = 'payout.paid' and telling = 1 then {{ attribute }} end),
            max(case when telling = 1 then {{ attribute }} end)
        ) as {{ attribute }},
        {%- endfor %}
        max(case when event_type = 'payout.failed' and telling = 1 then reason end) as failure_reason,
        min(case when event_type = 'payout.paid' then occurred_at end) as paid_at,
        min(case when event_type = 'payout.failed' then occurred_at end) as failed_at,
        count(*) as events_count,
        max(occurred_at) as last_event_at,
        max(loaded_at) as loaded_at
    from ranked
    group by payout_id
),

final as (
    select
        gathered.payout_id,
        {{ hash_key([
            'gathered.payout_id',
            'gathered.events_count',
            utc_microseconds('gathered.loaded_at'),
            'merchant_landings.versions_count',
            utc_microseconds('merchant_landings.loaded_at'),
        ]) }} as row_version,
        gathered.paid_event_id,
        gathered.failed_event_id,
        coalesce(gathered.paid_event_id, gathered.failed_event_id) as announcing_event_id,
        gathered.merchant_id,
        gathered.source_system,
        case when gathered.failed_event_id is null then 'paid' else 'failed' end as payout_status,
        gathered.failure_reason,
        gathered.currency_code,
        coalesce(merchants.time_zone, 'UTC') as merchant_time_zone,
        cast(currencies.currency_exponent as smallint) as currency_exponent,
        cast(gathered.amount as {{ type_money() }}) as amount,
        {{ to_minor_units('gathered.amount', 'currencies.currency_exponent') | indent(8) }} as amount_minor,
        gathered.failed_event_id is null as is_successful,
        coalesce(gathered.amount < 0, false) as is_debit,
        gathered.paid_event_id is null as has_missing_payment,
        gathered.arrival_date,
        {{ local_date('coalesce(gathered.paid_at, gathered.failed_at)', 'merchants.time_zone') }} as business_date,
        coalesce(gathered.paid_at, gathered.failed_at) as event_at_utc,
        gathered.paid_at,
        gathered.failed_at,
        gathered.last_event_at,
        greatest(gathered.loaded_at, coalesce(merchants.loaded_at, gathered.loaded_at)) as loaded_at
    from gathered
    left join currencies on gathered.currency_code = currencies.currency_code
    left join merchant_landings on gathered.merchant_id = merchant_landings.merchant_id
    left join merchants
        on
            gathered.merchant_id = merchants.merchant_id
            and coalesce(gathered.paid_at, gathered.failed_at) >= merchants.valid_from
            and coalesce(gathered.paid_at, gathered.failed_at) < merchants.valid_to
)

select * from final
