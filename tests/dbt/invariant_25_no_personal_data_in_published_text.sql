-- No text column of a published mart holds a card number (13 to 19 digits that pass the Luhn check and begin as cards
-- do) or an e-mail address. Keys and row versions are left out: they are md5 by contract, and hexadecimal digits would
-- give false alarms; so would the ids of documents, where these are the 24 hexadecimal digits that the store gives
-- them. Returns where it stands and in how many rows, never the value.
{{ config(tags=['invariant'], meta={'invariant': 25}) }}
{%- set digests = ('_key', 'row_version') %}
{%- set marts = [
    'dim_compliance',
    'dim_country',
    'dim_currency',
    'dim_customer',
    'dim_customer_history',
    'dim_date',
    'dim_device',
    'dim_fraud_rule',
    'dim_location',
    'dim_merchant',
    'dim_merchant_history',
    'dim_payment_method',
    'dim_payment_profile',
    'dim_product',
    'dim_product_history',
    'dim_status',
    'dim_time',
    'fct_balance_movement',
    'fct_compliance_status',
    'fct_dispute_event',
    'fct_error',
    'fct_exchange_rate',
    'fct_feedback',
    'fct_fraud',
    'fct_fraud_assessment',
    'fct_interaction',
    'fct_merchant_balance_daily',
    'fct_payment_attempt',
    'fct_payment_lifecycle',
    'fct_refund',
    'fct_sales',
    'fct_settlement',
    'rpt_acceptance',
    'rpt_balance_change',
    'rpt_cohort_retention',
    'rpt_compliance_scorecard',
    'rpt_customer_overview',
    'rpt_daily_overview',
    'rpt_dispute_activity',
    'rpt_dispute_vintage',
    'rpt_fraud_loss',
    'rpt_merchant_overview',
    'rpt_payout_reconciliation',
    'rpt_product_sales',
    'rpt_scheme_monitoring',
    'rpt_tra_reference',
] %}
with

findings as (
    {%- for mart in marts %}
    {%- set relation = ref(mart) %}
    {%- set columns = adapter.get_columns_in_relation(relation) if execute else [] %}
    {%- for column in columns if column.is_string() and not column.name.lower().endswith(digests) %}
    select
        '{{ mart }}.{{ column.name }}' as place,
        'card number' as finding,
        count(*) as occurrences
    from (
        select {{ long_digit_run(column.name) }} as digits
        from {{ relation }}
        where
            {{ has_long_digit_run(column.name) }}
            {%- if column.name.lower() == 'document_id' %}
            and not (length(document_id) = 24 and translate(document_id, '0123456789abcdef', '') = '')
            {%- endif %}
    ) as candidates
    where substr(digits, 1, 1) between '2' and '6' and {{ is_luhn_valid('digits') | indent(4) }}
    union all
    select
        '{{ mart }}.{{ column.name }}' as place,
        'e-mail address' as finding,
        count(*) as occurrences
    from {{ relation }}
    where {{ column.name }} like '%_@_%.__%'
    union all
    {%- endfor %}
    {%- endfor %}
    select
        'nowhere' as place,
        'nothing' as finding,
        0 as occurrences
)

select
    place,
    finding,
    occurrences
from findings
where occurrences > 0
