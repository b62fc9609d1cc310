-- One row per payment status of the OLTP reference list.
with

source as (
    select
        status_code,
        description as status_description,
        is_final,
        updated_at,
        _landed_at as loaded_at,
        _deleted_at as deleted_at
    from {{ source('oltp', 'status') }}
),

-- a row that is gone at the source stays in raw as a soft delete
final as (
    select
        status_code,
        status_description,
        is_final,
        updated_at,
        loaded_at
    from source
    where deleted_at is null
)

select * from final
