-- Writes down what this session holds. $8 is how long ago each was granted, in seconds; $9 whom to tell, or null.
WITH written AS (
    INSERT INTO grants (key, request, session, exclusive, token, since, namespace, space, name)
    SELECT one.key, one.request, $1, one.exclusive, one.token, clock_timestamp() - make_interval(secs => one.age), $2, one.space, one.name
    FROM unnest($3::bigint[], $4::bytea[], $5::boolean[], $6::bigint[], $7::text[], $8::double precision[], $10::text[])
        AS one (key, request, exclusive, token, space, age, name)
    ON CONFLICT (key, request) DO NOTHING
    RETURNING 1
)
SELECT count(*), CASE WHEN $9 IS NOT NULL THEN pg_notify($9, '') END FROM written
