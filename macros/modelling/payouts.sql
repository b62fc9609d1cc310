{#-
  For int_payout_movements: removes the payouts that have changed, or of which a movement has. A movement that nobody
  knew may have landed, and one may be announced a second time: such rows have no `movement_version`.
-#}
{% macro remove_changed_payouts() -%}
    {%- if is_incremental() -%}
    delete from {{ this }} where payout_id in (
        select built.payout_id from {{ this }} as built
        where
            built.payout_version not in (select payouts.row_version from {{ ref('int_payouts') }} as payouts)
            or built.movement_version is null
            or built.movement_version not in (
                select legs.row_version from {{ ref('int_ledger_entries') }} as legs
                where legs.ledger_account = 'merchant_balance'
            )
            or built.movement_id in (
                select legs.movement_id from {{ ref('int_ledger_entries') }} as legs
                where legs.ledger_account = 'merchant_balance' and legs.movement_id is not null
                group by legs.movement_id
                having count(*) > 1
            )
    )
    {%- endif -%}
{%- endmacro %}
