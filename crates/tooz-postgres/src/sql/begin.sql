-- How a connection is to behave, whatever the role or the database has set; $1 the schema, quoted. Nothing here is below the session timeout:
-- the server must not free before the deadline. No commit waits for a standby ($8), which could be gone, with the session's heartbeat behind it.
SELECT
    pg_backend_pid() AS pid,
    current_setting('server_version_num')::integer AS version,
    current_setting('server_encoding') AS encoding,
    pg_is_in_recovery() AS standby,
    set_config('search_path', $1, false),
    set_config('statement_timeout', $2, false),
    set_config('lock_timeout', $3, false),
    set_config('idle_session_timeout', $4, false),
    set_config('tcp_user_timeout', $5, false),
    set_config('tcp_keepalives_idle', $6, false),
    set_config('tcp_keepalives_interval', $7, false),
    set_config('tcp_keepalives_count', '3', false),
    set_config('idle_in_transaction_session_timeout', $5, false),
    -- From version 17 on. It would end a connection that waits for a lock.
    CASE WHEN current_setting('transaction_timeout', true) IS NOT NULL THEN set_config('transaction_timeout', '0', false) END,
    set_config('synchronous_commit', $8, false),
    set_config('default_transaction_isolation', 'read committed', false),
    set_config('default_transaction_read_only', 'off', false)
