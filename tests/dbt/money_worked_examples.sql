-- Money as worked out on paper: every row is an example whose result differs.
with

quotes as (
    select 'USD' as currency_code, cast(1.0811 as {{ type_quote() }}) as units_per_base
    union all
    select 'JPY' as currency_code, cast(163.45 as {{ type_quote() }}) as units_per_base
    union all
    select 'IDR' as currency_code, cast(17156.72 as {{ type_quote() }}) as units_per_base
),

rates as (
    select
        currency_code,
        {{ divide_quotes('cast(1 as ' ~ type_quote() ~ ')', 'units_per_base') | indent(8) }} as rate
    from quotes
),

conversions as (
    -- Saturday 2024-03-30 at Thursday's rate
    select 'USD' as currency_code, cast(100 as {{ type_money() }}) as amount, 92.4984 as expected
    union all
    select 'USD' as currency_code, cast(-100 as {{ type_money() }}) as amount, -92.4984 as expected
    union all
    select 'JPY' as currency_code, cast(10000 as {{ type_money() }}) as amount, 61.1808 as expected
    union all
    -- a rate of twelve decimals would give 58286.1990
    select 'IDR' as currency_code, cast(1000000000 as {{ type_money() }}) as amount, 58286.1992 as expected
    union all
    select 'USD' as currency_code, cast(null as {{ type_money() }}) as amount, null as expected
),

converted as (
    select
        'convert_money' as macro_name,
        {{ convert_money('conversions.amount', 'rates.rate') }} as actual,
        cast(conversions.expected as {{ type_money() }}) as expected
    from conversions
    inner join rates on conversions.currency_code = rates.currency_code
),

minor_unit_examples as (
    select cast(12.34 as {{ type_money() }}) as amount, 2 as exponent, 1234 as expected
    union all
    select cast(1000 as {{ type_money() }}) as amount, 0 as exponent, 1000 as expected
    union all
    select cast(1.2345 as {{ type_money() }}) as amount, 3 as exponent, 1235 as expected
    union all
    select cast(-1.2345 as {{ type_money() }}) as amount, 3 as exponent, -1235 as expected
    union all
    select cast(1.2345 as {{ type_money() }}) as amount, 4 as exponent, 12345 as expected
    union all
    select cast(99999999999999.9999 as {{ type_money() }}) as amount, 4 as exponent, 999999999999999999 as expected
    union all
    -- no exponent, no guess
    select cast(5 as {{ type_money() }}) as amount, null as exponent, null as expected
),

minor_units as (
    select
        'to_minor_units' as macro_name,
        {{ to_minor_units('amount', 'exponent') | indent(8) }} as actual,
        expected
    from minor_unit_examples
),

failures as (
    select
        macro_name,
        cast(actual as {{ type_text() }}) as actual,
        cast(expected as {{ type_text() }}) as expected
    from converted
    where coalesce(actual, 0) != coalesce(expected, 0) or (actual is null) != (expected is null)

    union all

    select
        macro_name,
        cast(actual as {{ type_text() }}) as actual,
        cast(expected as {{ type_text() }}) as expected
    from minor_units
    where coalesce(actual, 0) != coalesce(expected, 0) or (actual is null) != (expected is null)
)

select * from failures
