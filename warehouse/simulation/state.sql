-- What the simulation knows about its own work, outside the nine tables' schema.
create schema if not exists simulation;
create table if not exists simulation.state (
    only_row boolean primary key default true check (only_row),
    dataset text not null,
    seed bigint not null,
    transactions bigint not null,
    days integer not null,
    start_date date not null,
    current_day integer not null,
    target_day integer not null,
    status text not null check (status in ('filling', 'advancing', 'ready')),
    updated_at timestamptz not null default now()
);
