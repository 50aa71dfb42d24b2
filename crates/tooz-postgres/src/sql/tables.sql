-- Whether the schema $1 is there, and whether all is in it: the last function comes with all the rest.
SELECT
    EXISTS (SELECT 1 FROM pg_namespace WHERE nspname = $1) AS schema_is_there,
    EXISTS (
        SELECT 1 FROM pg_proc JOIN pg_namespace ON pg_namespace.oid = pronamespace
        WHERE nspname = $1 AND proname = 'sweep'
    ) AS all_is_there
