-- Tax inside an amount, as worked out on paper: every row is an example whose result differs.
with

examples as (
    -- 2.99 at 4 %: the tax is rounded, 0.115 → 0.12; rounding the net would give 0.11
    select
        299 as amount_minor,
        400 as rate_basis_points,
        12 as expected
    union all
    select
        -299 as amount_minor,
        400 as rate_basis_points,
        -12 as expected
    union all
    select
        11900 as amount_minor,
        1900 as rate_basis_points,
        1900 as expected
    union all
    -- 500 yen at 10 %: 45.45 → 45
    select
        500 as amount_minor,
        1000 as rate_basis_points,
        45 as expected
    union all
    select
        1000 as amount_minor,
        0 as rate_basis_points,
        0 as expected
    union all
    select
        null as amount_minor,
        1900 as rate_basis_points,
        null as expected
),

computed as (
    select
        amount_minor,
        rate_basis_points,
        expected,
        {{ included_tax_minor('amount_minor', 'rate_basis_points') }} as actual
    from examples
)

select
    amount_minor,
    rate_basis_points,
    expected,
    actual
from computed
where actual is distinct from expected
