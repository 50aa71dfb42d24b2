-- What of tooz is in the schema $1, and what this user may do with it; read from the catalog alone, which answers every user.
-- The names of relations and functions are those of schema.sql.
WITH home AS (SELECT oid, nspowner FROM pg_namespace WHERE nspname = $1),
things AS (
    SELECT thing.oid, relname::text AS name, relowner AS owner FROM pg_class AS thing JOIN home ON home.oid = relnamespace
    WHERE relname IN ('layout', 'fence', 'groups', 'sessions', 'members', 'grants', 'sweeps')
),
functions AS (
    SELECT thing.oid, proname::text AS name, proowner AS owner FROM pg_proc AS thing JOIN home ON home.oid = pronamespace
    WHERE proname IN ('is_over', 'open_session', 'tell_change', 'join_group', 'update_member', 'leave_group', 'delete_group', 'bury', 'clear_up',
        'sweep')
),
tables AS (SELECT oid FROM things WHERE name IN ('groups', 'sessions', 'members', 'grants'))
SELECT
    current_user::text AS who,
    EXISTS (SELECT 1 FROM home) AS has_schema,
    EXISTS (SELECT 1 FROM functions WHERE name = 'sweep') AS has_tables,
    EXISTS (SELECT 1 FROM things WHERE name = 'layout') AS has_layout,
    (SELECT count(*) FROM things) = 7 AND (SELECT count(DISTINCT name) FROM functions) = 10 AS is_complete,
    (SELECT string_agg(DISTINCT quote_ident(pg_get_userbyid(owner)), ', ')
        FROM (SELECT owner FROM things UNION SELECT owner FROM functions) AS all_owners WHERE NOT pg_has_role(owner, 'USAGE')) AS owners,
    coalesce(
        (SELECT has_schema_privilege(oid, 'CREATE') FROM home),
        has_database_privilege(current_database(), 'CREATE')
    ) AS may_create,
    NOT EXISTS (SELECT 1 FROM things WHERE NOT pg_has_role(owner, 'USAGE'))
        AND NOT EXISTS (SELECT 1 FROM functions WHERE NOT pg_has_role(owner, 'USAGE')) AS may_change,
    coalesce((SELECT has_schema_privilege(oid, 'USAGE') FROM home), true) AS may_use,
    coalesce((SELECT has_table_privilege(oid, 'SELECT') FROM things WHERE name = 'layout'), true) AS may_read_layout,
    coalesce((SELECT bool_and(has_table_privilege(oid, 'SELECT')) FROM tables), true) AS may_read,
    coalesce((
        SELECT bool_and(has_table_privilege(oid, 'SELECT') AND has_table_privilege(oid, 'INSERT')
            AND has_table_privilege(oid, 'UPDATE') AND has_table_privilege(oid, 'DELETE')) FROM tables
    ), true) AS may_write,
    coalesce((SELECT has_sequence_privilege(oid, 'USAGE') AND has_sequence_privilege(oid, 'SELECT') AND has_sequence_privilege(oid, 'UPDATE')
        FROM things WHERE name = 'fence'), true) AS may_count,
    coalesce((SELECT bool_and(has_function_privilege(oid, 'EXECUTE')) FROM functions), true) AS may_call
