-- The settings that matter; $1 the schema's name. max_locks_per_transaction counts per connection, and per prepared transaction.
SELECT
    current_setting('server_version') AS version,
    EXISTS (SELECT 1 FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace WHERE nspname = $1 AND relname = 'fence') AS has_tables,
    coalesce(
        (SELECT has_schema_privilege(oid, 'CREATE') FROM pg_namespace WHERE nspname = $1),
        has_database_privilege(current_database(), 'CREATE')
    ) AS may_create,
    current_setting('max_connections')::bigint AS max_connections,
    (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend') AS used_connections,
    current_setting('max_locks_per_transaction')::bigint
        * (current_setting('max_connections')::bigint + current_setting('max_prepared_transactions')::bigint) AS lock_places,
    current_setting('synchronous_commit') AS synchronous_commit,
    coalesce((SELECT cache_size FROM pg_sequences WHERE schemaname = $1 AND sequencename = 'fence'), 1) AS cache
