{#- The closed lists of the domain, each written once: models and their tests read the same ones. -#}

{% macro payment_event_types() -%}
    {{ return([
        'payment.attempted',
        'payment.authenticated',
        'payment.authorized',
        'payment.declined',
        'payment.blocked',
        'payment.captured',
        'refund.succeeded',
        'refund.failed',
        'dispute.inquiry',
        'dispute.opened',
        'dispute.evidence_submitted',
        'dispute.won',
        'dispute.lost',
        'fraud.reported',
        'payout.paid',
        'payout.failed',
        'fee.charged',
    ]) }}
{%- endmacro %}


{% macro payment_statuses() -%}
    {{ return([
        'requires_action',
        'authorized',
        'captured',
        'failed',
        'blocked',
        'canceled',
        'refunded',
        'partially_refunded',
        'disputed',
        'charged_back',
    ]) }}
{%- endmacro %}


{#- Statuses that only a payment whose money was once taken can have. -#}
{% macro captured_statuses() -%}
    {{ return(['captured', 'partially_refunded', 'refunded', 'disputed', 'charged_back']) }}
{%- endmacro %}


{#- How the document store's three words read in the company's own. -#}
{% macro mongodb_status_mapping() -%}
    {{ return({'approved': 'captured', 'review': 'authorized', 'fraudulent': 'blocked'}) }}
{%- endmacro %}


{#-
  From each status, where a payment may go next. `failed` may be tried again; a dispute may be won, which brings back
  what stood before it; `blocked`, `canceled` and `charged_back` are final. Every payment may begin anywhere: one
  that lives in the document store shows only its end.
-#}
{% macro legal_status_transitions() -%}
    {{ return({
        'requires_action': ['authorized', 'failed', 'blocked', 'canceled'],
        'failed': ['requires_action', 'authorized', 'blocked', 'canceled'],
        'authorized': ['captured', 'failed', 'blocked', 'canceled'],
        'captured': ['partially_refunded', 'refunded', 'disputed'],
        'partially_refunded': ['refunded', 'disputed'],
        'refunded': ['disputed'],
        'disputed': ['captured', 'partially_refunded', 'refunded', 'charged_back'],
        'blocked': [],
        'canceled': [],
        'charged_back': [],
    }) }}
{%- endmacro %}


{% macro interaction_event_types() -%}
    {{ return(['view', 'add_to_cart', 'checkout', 'purchase', 'search']) }}
{%- endmacro %}


{#- Milestones of a payment that must not come the other way round: (earlier, later). -#}
{% macro milestone_order() -%}
    {{ return([
        ('attempted_at', 'authorized_at'),
        ('authorized_at', 'captured_at'),
        ('captured_at', 'first_refund_at'),
        ('captured_at', 'dispute_opened_at'),
        ('dispute_opened_at', 'dispute_won_at'),
        ('dispute_opened_at', 'dispute_lost_at'),
    ]) }}
{%- endmacro %}

{#- Whether any two milestones of `relation` are the wrong way round. -#}
{% macro is_out_of_order(relation) -%}
    {%- for earlier, later in milestone_order() -%}
    {{ ' or ' if not loop.first }}{{ relation }}.{{ later }} < {{ relation }}.{{ earlier }}
    {%- endfor -%}
{%- endmacro %}
