{#- A birth year as an age band at `as_of` (a date or timestamp). By year only: up to a year off, on purpose. -#}
{% macro mask_birth_year(birth_year, as_of) -%}
    {%- set age -%} (extract(year from {{ as_of }}) - {{ birth_year }}) {%- endset -%}
    /*breaker:mask_birth_year(*/ case
        when {{ age }} < 18 then 'under 18'
        when {{ age }} < 25 then '18-24'
        when {{ age }} < 35 then '25-34'
        when {{ age }} < 45 then '35-44'
        when {{ age }} < 55 then '45-54'
        when {{ age }} < 65 then '55-64'
        when {{ age }} >= 65 then '65 and over'
    end /*)breaker*/
{%- endmacro %}
