-- Keys first, then what refers to them, then the indexes that cursors and look-ups need.

alter table public.currency add primary key (currency_code);
alter table public.location add primary key (location_id);
alter table public.customer add primary key (customer_id);
alter table public.merchant add primary key (merchant_id);
alter table public.product add primary key (product_id);
alter table public.device add primary key (device_id);
alter table public.payment_method add primary key (payment_method_id);
alter table public.status add primary key (status_code);
alter table public.transaction add primary key (transaction_id);

alter table public.customer
    add constraint customer_location_fk foreign key (location_id) references public.location;
alter table public.merchant
    add constraint merchant_location_fk foreign key (location_id) references public.location,
    add constraint merchant_currency_fk foreign key (settlement_currency) references public.currency;
alter table public.product
    add constraint product_merchant_fk foreign key (merchant_id) references public.merchant,
    add constraint product_currency_fk foreign key (currency_code) references public.currency;
alter table public.device
    add constraint device_customer_fk foreign key (customer_id) references public.customer;
alter table public.payment_method
    add constraint payment_method_customer_fk foreign key (customer_id) references public.customer;
alter table public.transaction
    add constraint transaction_merchant_fk foreign key (merchant_id) references public.merchant,
    add constraint transaction_customer_fk foreign key (customer_id) references public.customer,
    add constraint transaction_payment_method_fk
        foreign key (payment_method_id) references public.payment_method,
    add constraint transaction_product_fk foreign key (product_id) references public.product,
    add constraint transaction_device_fk foreign key (device_id) references public.device,
    add constraint transaction_location_fk foreign key (location_id) references public.location,
    add constraint transaction_currency_fk foreign key (currency_code) references public.currency,
    add constraint transaction_status_fk foreign key (status_code) references public.status;

create index location_updated_at on public.location (updated_at);
create index customer_updated_at on public.customer (updated_at);
create index merchant_updated_at on public.merchant (updated_at);
create index product_updated_at on public.product (updated_at);
create index device_updated_at on public.device (updated_at);
create index payment_method_updated_at on public.payment_method (updated_at);
create index transaction_updated_at on public.transaction (updated_at);
create index transaction_customer on public.transaction (customer_id);
-- Without these two, deleting a device or a payment method reads the whole table to check the foreign key.
create index transaction_device on public.transaction (device_id);
create index transaction_payment_method on public.transaction (payment_method_id);
create index device_customer on public.device (customer_id);
create index payment_method_customer on public.payment_method (customer_id);

-- What `warehouse ingest oltp --follow` hears of: which rows have changed, by their keys, and not what they say.
drop publication if exists payments_warehouse;
create publication payments_warehouse for table
    public.currency (currency_code),
    public.location (location_id),
    public.customer (customer_id),
    public.merchant (merchant_id),
    public.product (product_id),
    public.device (device_id),
    public.payment_method (payment_method_id),
    public.status (status_code),
    public.transaction (transaction_id);
