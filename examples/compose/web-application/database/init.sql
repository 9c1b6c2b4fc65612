create table visits (id bigserial primary key, seen timestamptz not null default now());
