{#-
  What the documents of the three collections with a history look like. Their current and their history model flatten
  the same document, so the shape (`structure`) and the columns (name → expression over `parsed`) are said once here.
-#}

{% macro mongodb_transactions_structure() -%}
    {{ return({
        'transaction_id': 'text',
        'customer_id': 'text',
        'merchant_id': 'text',
        'date': {'created': 'text', 'updated': 'text', 'timezone': 'text'},
        'amount': 'text',
        'currency': {'code': 'text', 'rate_to_usd': 'text'},
        'fraud_score': 'text',
        'status': 'text',
        'signals': 'json',
        'location': {
            'country': 'text',
            'city': 'text',
            'geo': {'lat_token': 'text', 'lat_degree': 'text', 'lon_token': 'text', 'lon_degree': 'text'},
            'ip_token': 'text',
            'ip_network': 'text',
        },
    }) }}
{%- endmacro %}

{#- An amount is a double, a Decimal128 or, now and then, words: what is no amount becomes null, and says so. -#}
{% macro mongodb_transactions_columns() -%}
    {%- set amount = try_to_money(json_text('parsed', 'amount')) -%}
    {{ return({
        'transaction_id': json_text('parsed', 'transaction_id'),
        'customer_id': json_text('parsed', 'customer_id'),
        'merchant_id': json_text('parsed', 'merchant_id'),
        'currency_code': 'upper(' ~ json_text('parsed', 'currency.code') ~ ')',
        'status': 'lower(' ~ json_text('parsed', 'status') ~ ')',
        'time_zone': json_text('parsed', 'date.timezone'),
        'location_country': json_text('parsed', 'location.country'),
        'location_city': json_text('parsed', 'location.city'),
        'latitude_token': json_text('parsed', 'location.geo.lat_token'),
        'longitude_token': json_text('parsed', 'location.geo.lon_token'),
        'ip_token': json_text('parsed', 'location.ip_token'),
        'ip_network': json_text('parsed', 'location.ip_network'),
        'signals': json_json('parsed', 'signals'),
        'signals_count': json_array_size(json_json('parsed', 'signals')),
        'amount': amount,
        'document_rate_to_usd': try_to(json_text('parsed', 'currency.rate_to_usd'), type_quote()),
        'fraud_score': try_to(json_text('parsed', 'fraud_score'), 'decimal(9, 6)'),
        'latitude_degree': try_to(json_text('parsed', 'location.geo.lat_degree'), 'smallint'),
        'longitude_degree': try_to(json_text('parsed', 'location.geo.lon_degree'), 'smallint'),
        'has_invalid_amount': amount ~ ' is null',
        'created_at': try_to_utc(json_text('parsed', 'date.created')),
        'updated_at': 'coalesce(' ~ try_to_utc(json_text('parsed', 'date.updated')) ~ ', cursor_at)',
    }) }}
{%- endmacro %}


{% macro mongodb_merchants_structure() -%}
    {{ return({
        'merchant_id': 'text',
        'profile': {
            'trade_name': 'text',
            'mcc': 'text',
            'website': 'text',
            'support_email_token': 'text',
            'email_domain': 'text',
            'support_phone_token': 'text',
            'country': 'text',
            'employees': 'text',
        },
        'documents': 'json',
        'beneficial_owners': 'json',
        'updated_at': 'text',
    }) }}
{%- endmacro %}

{% macro mongodb_merchants_columns() -%}
    {%- set documents = json_json('parsed', 'documents') -%}
    {%- set owners = json_json('parsed', 'beneficial_owners') -%}
    {{ return({
        'merchant_id': json_text('parsed', 'merchant_id'),
        'profile_trade_name': json_text('parsed', 'profile.trade_name'),
        'profile_category_code': json_text('parsed', 'profile.mcc'),
        'website': json_text('parsed', 'profile.website'),
        'support_email_token': json_text('parsed', 'profile.support_email_token'),
        'support_phone_token': json_text('parsed', 'profile.support_phone_token'),
        'support_email_domain': json_text('parsed', 'profile.email_domain'),
        'profile_country': json_text('parsed', 'profile.country'),
        'employees_count': try_to(json_text('parsed', 'profile.employees'), 'integer'),
        'documents_count': json_array_size(documents),
        'documents_verified_count': json_array_count(documents, 'status', 'verified'),
        'owners_count': json_array_size(owners),
        'has_pep_owner_token': json_array_count(owners, 'is_politically_exposed_token') ~ ' > 0',
        'updated_at': 'coalesce(' ~ try_to_utc(json_text('parsed', 'updated_at')) ~ ', cursor_at)',
    }) }}
{%- endmacro %}


{% macro mongodb_products_structure() -%}
    {{ return({
        'product_id': 'text',
        'merchant_id': 'text',
        'name': 'text',
        'attributes': 'json',
        'tags': 'json',
        'variants': 'json',
        'updated_at': 'text',
    }) }}
{%- endmacro %}

{% macro mongodb_products_columns() -%}
    {{ return({
        'product_id': json_text('parsed', 'product_id'),
        'merchant_id': json_text('parsed', 'merchant_id'),
        'product_name': json_text('parsed', 'name'),
        'attributes': json_json('parsed', 'attributes'),
        'tags': json_json('parsed', 'tags'),
        'variants': json_json('parsed', 'variants'),
        'tags_count': json_array_size(json_json('parsed', 'tags')),
        'variants_count': json_array_size(json_json('parsed', 'variants')),
        'updated_at': 'coalesce(' ~ try_to_utc(json_text('parsed', 'updated_at')) ~ ', cursor_at)',
    }) }}
{%- endmacro %}
