-- One row per currency of the OLTP reference list (ISO 4217).
with

source as (
    select
        currency_code,
        numeric_code,
        currency_name,
        minor_unit as currency_exponent,
        updated_at,
        _landed_at as loaded_at,
        _deleted_at as deleted_at
    from {{ source('oltp', 'currency') }}
),

-- a row that is gone at the source stays in raw as a soft delete
final as (
    select
        currency_code,
        numeric_code,
        currency_name,
        currency_exponent,
        updated_at,
        loaded_at
    from source
    where deleted_at is null
)

select * from final
