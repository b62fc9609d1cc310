-- Opening + movements = closing on every day; a day opens as the one before it closed, and none is left out; the last
-- closing is the ledger's own sum; a month of the report opens and closes as its first and last day do.
{{ config(tags=['invariant'], meta={'invariant': 17}) }}
with

days as (
    select
        merchant_key,
        currency_code,
        business_date,
        opening_amount,
        net_movement_amount,
        closing_amount,
        lag(closing_amount) over (
            partition by merchant_key, currency_code order by business_date
        ) as previous_closing_amount,
        lead(business_date) over (
            partition by merchant_key, currency_code order by business_date
        ) as next_date
    from {{ ref('fct_merchant_balance_daily') }}
),

last_landing as (
    select {{ utc_date('max(loaded_at)') }} as landing_date from {{ ref('fct_merchant_balance_daily') }}
),

ledger as (
    select
        merchant_key,
        currency_code,
        sum(amount) as ledger_amount
    from {{ ref('fct_balance_movement') }}
    where ledger_account = 'merchant_balance'
    group by merchant_key, currency_code
),

months as (
    select
        merchant_key,
        currency_code,
        month_start_date,
        last_known_date,
        opening_amount,
        net_movement_amount,
        closing_amount,
        lag(closing_amount) over (
            partition by merchant_key, currency_code order by month_start_date
        ) as previous_closing_amount
    from {{ ref('rpt_balance_change') }}
)

select
    days.merchant_key,
    days.currency_code,
    days.business_date,
    'day' as finding
from days
cross join last_landing
where
    days.opening_amount + days.net_movement_amount != days.closing_amount
    or days.opening_amount != coalesce(days.previous_closing_amount, 0)
    -- a movement from the future stands alone after the last landing: only days before that are without gap
    or (
        {{ days_between('days.business_date', 'days.next_date') }} > 1
        and days.next_date <= last_landing.landing_date
    )
union all
select
    ledger.merchant_key,
    ledger.currency_code,
    days.business_date,
    'ledger' as finding
from ledger
left join days
    on
        ledger.merchant_key = days.merchant_key
        and ledger.currency_code = days.currency_code
        and days.next_date is null
where days.closing_amount is null or ledger.ledger_amount != days.closing_amount
union all
select
    months.merchant_key,
    months.currency_code,
    months.month_start_date as business_date,
    'month' as finding
from months
left join days
    on
        months.merchant_key = days.merchant_key
        and months.currency_code = days.currency_code
        and months.last_known_date = days.business_date
where
    months.opening_amount + months.net_movement_amount != months.closing_amount
    or months.opening_amount != coalesce(months.previous_closing_amount, 0)
    or days.closing_amount is null
    or months.closing_amount != days.closing_amount
