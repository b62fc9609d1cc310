{#-
  Invariant 25. Fails for every row whose text holds 13 to 19 digits that pass the Luhn check and begin as cards do
  (2 to 6), spaced or dashed or not.

  On a column it reads that column; on a model it reads every text column but `except` (tokens: their hexadecimal
  digits are no card number, and reading them would only cost time). The failing value is not returned, only which
  column it stands in.
-#}
{% test no_pan(model, column_name=none, except=[]) %}
    {%- set columns = [] -%}
    {%- if column_name -%}
        {%- do columns.append(column_name) -%}
    {%- elif execute -%}
        {%- for column in adapter.get_columns_in_relation(model) if column.is_string() and column.name not in except -%}
            {%- do columns.append(column.name) -%}
        {%- endfor -%}
    {%- endif -%}
    {%- for column in columns %}
    select '{{ column }}' as column_with_card_number
    from (
        select {{ long_digit_run(column) }} as digits
        from {{ model }}
        where {{ has_long_digit_run(column) }}
    ) as candidates
    where {{ is_luhn_valid('digits') }}
    {{ 'union all' if not loop.last }}
    {%- else %}
    select cast(null as {{ type_text() }}) as column_with_card_number
    from {{ model }}
    where false
    {%- endfor %}
{% endtest %}


{#- Whether a text of 13 to 19 digits has a valid Luhn check digit: from the right, every second digit doubled. -#}
{% macro is_luhn_valid(digits) -%}
    mod(
        {%- for position in range(1, 20) %}
        {%- set digit = "cast(substr(lpad(" ~ digits ~ ", 19, '0'), " ~ position ~ ", 1) as integer)" %}
        {%- if position % 2 == 1 %}
        {{ digit }}
        {%- else %}
        case when {{ digit }} > 4 then {{ digit }} * 2 - 9 else {{ digit }} * 2 end
        {%- endif %}
        {{- ' +' if not loop.last }}
        {%- endfor %},
        10
    ) = 0
{%- endmacro %}
