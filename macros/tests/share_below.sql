{#-
  Fails when the share of rows that meet `condition` is at or above `threshold` (0..1). Returns shares, never rows.
  An empty relation passes.
-#}
{% test share_below(model, condition, threshold) %}
    select
        meeting_rows,
        all_rows
    from (
        select
            sum(case when {{ condition }} then 1 else 0 end) as meeting_rows,
            count(*) as all_rows
        from {{ model }}
    ) as counted
    where all_rows > 0 and meeting_rows >= {{ threshold }} * all_rows
{% endtest %}
