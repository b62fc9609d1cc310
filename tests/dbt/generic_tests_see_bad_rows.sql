-- Our generic tests, each on rows planted for it. A row here is a test that saw more or fewer failures than planted.
{%- set numbers %}
    (
        select 1 as id, -1 as amount, false as is_good
        union all
        select 2 as id, 0 as amount, true as is_good
        union all
        select 2 as id, 11 as amount, true as is_good
        union all
        select cast(null as integer) as id, null as amount, null as is_good
    ) as planted
{%- endset %}
{%- set intervals %}
    (
        select 'gap' as id, 1 as valid_from, 3 as valid_to, false as is_current
        union all
        select 'gap' as id, 4 as valid_from, 9 as valid_to, false as is_current
        union all
        select 'overlap' as id, 1 as valid_from, 5 as valid_to, true as is_current
        union all
        select 'overlap' as id, 4 as valid_from, 9 as valid_to, true as is_current
        union all
        select 'empty' as id, 4 as valid_from, 4 as valid_to, true as is_current
        union all
        select 'sound' as id, 1 as valid_from, 4 as valid_to, false as is_current
        union all
        select 'sound' as id, 4 as valid_from, 9 as valid_to, true as is_current
    ) as planted
{%- endset %}
{#- the issuers' own documentation numbers, put together here so that no scanner takes this file for a leak -#}
{%- set texts %}
    (
        select 'plain' as id, '4111' || '1111' || '1111' || '1111' as remark
        union all
        select 'dashed' as id, 'paid with 5500-0000' || '-0000-0004 today' as remark
        union all
        select 'spaced' as id, '3782 8224' || '6310 005' as remark
        union all
        select 'wrong check digit' as id, '4111' || '1111' || '1111' || '1112' as remark
        union all
        select 'too short' as id, '4111 1111' as remark
        union all
        select 'a timestamp' as id, '20240330120000' as remark
        union all
        select 'nothing' as id, null as remark
    ) as planted
{%- endset %}
{%- set cases = [
    ('unique_grain', test_unique_grain(numbers, columns=['id']), 2),
    ('not_negative', test_not_negative(numbers, column_name='amount'), 1),
    ('accepted_range', test_accepted_range(numbers, column_name='amount', min_value=0, max_value=10), 2),
    ('accepted_range, open above', test_accepted_range(numbers, column_name='amount', min_value=0), 1),
    ('expression_is_true', test_expression_is_true(numbers, expression='is_good'), 1),
    ('share_below, at the threshold', test_share_below(numbers, condition='is_good', threshold=0.5), 1),
    ('share_below, under the threshold', test_share_below(numbers, condition='is_good', threshold=0.51), 0),
    ('non_overlapping_intervals', test_non_overlapping_intervals(intervals, key='id'), 3),
    ('non_overlapping_intervals, gaps allowed', test_non_overlapping_intervals(intervals, key='id', gaps_allowed=true), 2),
    ('one_current_row', test_one_current_row(intervals, key='id'), 2),
    ('no_pan', test_no_pan(texts, column_name='remark'), 3),
] %}
with

counted as (
    {%- for name, query, expected in cases %}
    select
        '{{ name }}' as test_name,
        {{ expected }} as expected_failures,
        (select count(*) from ({{ query }}) as failures) as seen_failures
    {{ 'union all' if not loop.last }}
    {%- endfor %}
)

select * from counted
where expected_failures != seen_failures
