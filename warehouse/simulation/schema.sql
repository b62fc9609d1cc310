-- The company's OLTP schema: third normal form, nine tables. Keys, foreign keys and indexes are in
-- constraints.sql, which runs after the bulk load: checking a foreign key once per table is some fifty
-- times cheaper than once per row.

create table public.currency (
    currency_code char(3) not null,
    numeric_code char(3) not null,
    currency_name text not null,
    minor_unit smallint not null check (minor_unit between 0 and 4),
    updated_at timestamptz not null
);

create table public.location (
    location_id text not null,
    country_code char(2) not null,
    region_code text,
    city text not null,
    postal_code text,
    latitude numeric(9, 6) not null check (latitude between -90 and 90),
    longitude numeric(9, 6) not null check (longitude between -180 and 180),
    updated_at timestamptz not null
);

create table public.customer (
    customer_id text not null,
    first_name text not null,
    last_name text not null,
    email text not null,
    phone text,
    date_of_birth date,
    location_id text not null,
    kyc_status text not null check (kyc_status in ('not_started', 'pending', 'verified', 'rejected')),
    marketing_consent boolean not null,
    consent_updated_at timestamptz,
    created_at timestamptz not null,
    updated_at timestamptz not null
);

create table public.merchant (
    merchant_id text not null,
    legal_name text not null,
    trade_name text not null,
    mcc char(4) not null,
    location_id text not null,
    settlement_currency char(3) not null,
    time_zone text not null,
    pci_level smallint not null check (pci_level between 1 and 4),
    risk_tier text not null check (risk_tier in ('low', 'medium', 'high')),
    onboarded_at timestamptz not null,
    updated_at timestamptz not null
);

create table public.product (
    product_id text not null,
    merchant_id text not null,
    product_name text not null,
    category text not null,
    unit_price numeric(18, 4) not null check (unit_price > 0),
    currency_code char(3) not null,
    is_active boolean not null,
    created_at timestamptz not null,
    updated_at timestamptz not null
);

create table public.device (
    device_id text not null,
    customer_id text not null,
    device_type text not null,
    os text,
    browser text,
    fingerprint text not null,
    ip_address inet,
    first_seen_at timestamptz not null,
    updated_at timestamptz not null
);

create table public.payment_method (
    payment_method_id text not null,
    customer_id text not null,
    method_type text not null check (method_type in ('card', 'wallet', 'bank_transfer')),
    card_brand text,
    card_number text,
    card_expiry char(5),
    issuer_country char(2),
    wallet text,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    check (method_type = 'bank_transfer' or card_number is not null)
);

create table public.status (
    status_code text not null,
    description text not null,
    is_final boolean not null,
    updated_at timestamptz not null
);

create table public.transaction (
    transaction_id text not null,
    merchant_id text not null,
    customer_id text not null,
    payment_method_id text not null,
    product_id text not null,
    quantity integer not null check (quantity > 0),
    device_id text,
    location_id text not null,
    currency_code char(3) not null,
    amount numeric(18, 4) not null check (amount > 0),
    tax numeric(18, 4) not null check (tax >= 0 and tax <= amount),
    status_code text not null,
    created_at timestamptz not null,
    updated_at timestamptz not null check (updated_at >= created_at)
);
