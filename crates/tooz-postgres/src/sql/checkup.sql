-- The settings that matter; $1 the schema's name. max_locks_per_transaction counts per connection, and per prepared transaction. What only some
-- may read is null for the others.
SELECT
    current_setting('server_version') AS version,
    current_setting('max_connections')::bigint AS max_connections,
    (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend') AS used_connections,
    current_setting('max_locks_per_transaction')::bigint
        * (current_setting('max_connections')::bigint + current_setting('max_prepared_transactions')::bigint) AS lock_places,
    current_setting('synchronous_standby_names') AS standbys,
    (SELECT cache_size FROM pg_sequences WHERE schemaname = $1 AND sequencename = 'fence') AS cache
