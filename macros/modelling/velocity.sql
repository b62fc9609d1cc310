{#- The windows of `int_velocity`, in microseconds. -#}
{% macro velocity_windows() -%}
    {{ return({'1h': 3600000000, '24h': 86400000000, '7d': 604800000000}) }}
{%- endmacro %}

{#- How many days before its own a payment's longest window reaches. -#}
{% macro velocity_window_days() -%}
    {{ return((velocity_windows().values() | max) // 86400000000) }}
{%- endmacro %}

{#- Whether a payment names someone who can be counted: nobody, and who was erased, cannot. -#}
{% macro names_a_member(member) -%}
    {{ member }} is not null
    and {{ member }} != '{{ var("erased_key") }}'
{%- endmacro %}


{#-
  For each payment of `relation` that names a `member` (a column): number and sum of the same member's payments in each
  window before it, as `payments_1h`, `amount_1h` and so on.

  A frame of whole microseconds that ends one before the payment: of two payments at the same instant neither sees the
  other, and a payment sees neither itself nor what came later. `relation` has transaction_key, amount_reporting and
  moment (microseconds).
-#}
{% macro payments_before(relation, member) -%}
    select
        transaction_key
        {%- for name, width in velocity_windows().items() %},
        count(*) over (
            partition by {{ member }}
            order by moment
            range between {{ width }} preceding and 1 preceding
        ) as payments_{{ name }},
        sum(amount_reporting) over (
            partition by {{ member }}
            order by moment
            range between {{ width }} preceding and 1 preceding
        ) as amount_{{ name }}
        {%- endfor %}
    from {{ relation }}
    where
        {{ names_a_member(member) | indent(4) }}
{%- endmacro %}


{#-
  After a run: payments that are gone from `upstream`. Only now, since those whose counts they had changed are found by
  them; a run that died before this finds them again.
-#}
{% macro remove_uncounted(upstream) -%}
    {%- if is_incremental() -%}
    delete from {{ this }}
    where transaction_key not in (select upstream.transaction_key from {{ ref(upstream) }} as upstream)
    {%- endif -%}
{%- endmacro %}
