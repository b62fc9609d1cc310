{#-
  For fct_merchant_balance_daily: of every merchant and currency, removes the days from the first on which its movements
  have changed. What is left is true and has no gap; days after the last known one are made anew in every run, and so
  is a balance with a gap: a clock that ran ahead left one.
-#}
{% macro remove_changed_balances() -%}
    {%- if is_incremental() -%}
    delete from {{ this }} where merchant_balance_key in (
        with

        days as (
            select
                merchant_key,
                currency_code,
                business_date,
                {{ balance_day_version() }} as row_version,
                max(loaded_at) as loaded_at
            from {{ ref('fct_balance_movement') }}
            where ledger_account = 'merchant_balance'
            group by merchant_key, currency_code, business_date
        ),

        built as (
            select merchant_key, currency_code, business_date, row_version
            from {{ this }}
        ),

        changes as (
            select merchant_key, currency_code, business_date from days
            where row_version not in (
                select built.row_version from built where built.row_version is not null
            )
            union all
            select merchant_key, currency_code, business_date from built
            where row_version not in (select days.row_version from days)
            union all
            select merchant_key, currency_code, min(business_date) as business_date from built
            group by merchant_key, currency_code
            having count(*) != {{ days_between('min(business_date)', 'max(business_date)') }} + 1
        ),

        first_changes as (
            select merchant_key, currency_code, min(business_date) as business_date from changes
            group by merchant_key, currency_code
        ),

        bounds as (
            select least(max(business_date), {{ utc_date('max(loaded_at)') }}) as last_date from days
        )

        select balances.merchant_balance_key
        from {{ this }} as balances
        cross join bounds
        left join first_changes
            on
                balances.merchant_key = first_changes.merchant_key
                and balances.currency_code = first_changes.currency_code
        where
            balances.business_date >= first_changes.business_date
            or balances.business_date > bounds.last_date
    )
    {%- endif -%}
{%- endmacro %}

{#- Of the movements of a merchant, currency and day that are grouped: what changes when one of them does. -#}
{% macro balance_day_version() -%}
    {{ hash_key([
        'merchant_key',
        'currency_code',
        'business_date',
        'count(*)',
        'sum(amount)',
        utc_microseconds('max(event_at_utc)'),
        utc_microseconds('max(loaded_at)'),
    ]) }}
{%- endmacro %}
