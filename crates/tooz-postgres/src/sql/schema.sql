-- What tooz keeps in a PostgreSQL database: layout {layout}, revision {revision}. Run it as a user that may create, or as the owner of what
-- an older version of tooz has made. May be run again: it adds what is missing, brings the functions up to date and touches no rows.
DO {body}
DECLARE
    found record;
BEGIN
    PERFORM pg_advisory_xact_lock({creating});
    IF to_regclass({layout_table}) IS NOT NULL THEN
        SELECT layout, revision INTO found FROM {schema}.layout;
        IF found.layout <> {layout} THEN
            RAISE EXCEPTION 'this schema is kept in layout %, and these statements make layout {layout}: use another schema', found.layout;
        ELSIF found.revision > {revision} THEN
            RAISE EXCEPTION 'a newer version of tooz has made revision % of this schema: there is nothing to do', found.revision;
        END IF;
    END IF;
END {body};

CREATE SCHEMA IF NOT EXISTS {schema};

-- How all this is kept. Members that speak another layout would not see each other's locks, so they refuse to open a session. A revision adds
-- to a layout: members of all its revisions work side by side, since what an older one calls stays.
CREATE TABLE IF NOT EXISTS {schema}.layout (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    layout integer NOT NULL,
    revision integer NOT NULL
);
GRANT SELECT ON {schema}.layout TO PUBLIC;

-- One counter for all fencing tokens. CACHE 1, so that tokens grow in the order in which they are handed out over all connections.
CREATE SEQUENCE IF NOT EXISTS {schema}.fence AS bigint CACHE 1;

-- The groups. The only table that has to survive a crash: what members hold ends with their connections anyway.
CREATE TABLE IF NOT EXISTS {schema}.groups (
    namespace text NOT NULL,
    name text NOT NULL,
    key bigint NOT NULL,
    version bigint NOT NULL,
    PRIMARY KEY (namespace, name)
);

-- The open sessions. Each keeps an exclusive advisory lock on its own number: it is alive as long as that lock is held.
CREATE UNLOGGED TABLE IF NOT EXISTS {schema}.sessions (
    session bigint PRIMARY KEY,
    namespace text NOT NULL,
    member text NOT NULL,
    pid integer NOT NULL,
    since timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE UNLOGGED TABLE IF NOT EXISTS {schema}.members (
    namespace text NOT NULL,
    name text NOT NULL,
    member text NOT NULL,
    request bytea NOT NULL,
    session bigint NOT NULL,
    capabilities text NOT NULL,
    PRIMARY KEY (namespace, name, member)
);
CREATE INDEX IF NOT EXISTS members_session ON {schema}.members (session);

-- The holders of locks, for those that ask. The advisory lock on the key is what excludes; grants of a few milliseconds never get here.
CREATE UNLOGGED TABLE IF NOT EXISTS {schema}.grants (
    key bigint NOT NULL,
    request bytea NOT NULL,
    session bigint NOT NULL,
    exclusive boolean NOT NULL,
    token bigint NOT NULL,
    since timestamptz NOT NULL,
    namespace text NOT NULL,
    space text NOT NULL,
    name text NOT NULL,
    PRIMARY KEY (key, request)
);
CREATE INDEX IF NOT EXISTS grants_session ON {schema}.grants (session);

-- How far the clearing up has come: no session is at it where there is no place. The session that clears up has this row for itself.
CREATE UNLOGGED TABLE IF NOT EXISTS {schema}.sweeps (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    place bigint,
    began timestamptz NOT NULL
);

-- Whether a session is over. A lock that can be had for a moment is held no more; it is given back at once, so that however many are
-- looked at take one place in the server's lock table. Not for the session that asks, which can always have its own lock.
CREATE OR REPLACE FUNCTION {schema}.is_over(the_session bigint) RETURNS boolean LANGUAGE sql AS {body}
    SELECT CASE WHEN pg_try_advisory_lock_shared(the_session) THEN pg_advisory_unlock_shared(the_session) ELSE false END
{body};

-- Opens a session. The first one since the server started (no session holds `lifted`) lifts the counter above the time in microseconds, so that
-- tokens grow also over a crash that lost the end of the counter. While `lifting` is held no other session opens, so none takes a token meanwhile.
CREATE OR REPLACE FUNCTION {schema}.open_session(
    my_session bigint, my_namespace text, my_member text, lifting bigint, lifted bigint
) RETURNS boolean LANGUAGE plpgsql AS {body}
BEGIN
    PERFORM pg_advisory_xact_lock(lifting);
    IF NOT pg_try_advisory_lock(my_session) THEN
        RETURN false;
    END IF;
    IF pg_try_advisory_lock(lifted) THEN
        PERFORM setval({fence},
            greatest(nextval({fence}), (extract(epoch FROM clock_timestamp()) * 1000000)::bigint));
        PERFORM pg_advisory_lock_shared(lifted);
        PERFORM pg_advisory_unlock(lifted);
    ELSE
        PERFORM pg_advisory_lock_shared(lifted);
    END IF;
    INSERT INTO {schema}.sessions (session, namespace, member, pid) VALUES (my_session, my_namespace, my_member, pg_backend_pid());
    RETURN true;
END {body};

-- The same for members that know of layouts: 'ok', 'taken': another session has the number, else the layout that the schema has meanwhile.
CREATE OR REPLACE FUNCTION {schema}.open_session(
    my_session bigint, my_namespace text, my_member text, lifting bigint, lifted bigint, my_layout integer
) RETURNS text LANGUAGE plpgsql AS {body}
DECLARE
    kept integer;
BEGIN
    -- A user that changes the layout holds `lifting` too, so it does not change between this look and the entry.
    PERFORM pg_advisory_xact_lock(lifting);
    SELECT layout INTO kept FROM {schema}.layout;
    IF kept <> my_layout THEN
        RETURN kept;
    ELSIF {schema}.open_session(my_session, my_namespace, my_member, lifting, lifted) THEN
        RETURN 'ok';
    END IF;
    RETURN 'taken';
END {body};

-- Counts a change of a group and tells it to those that listen. What is too long for a notification is told without its content.
CREATE OR REPLACE FUNCTION {schema}.tell_change(
    the_namespace text, the_name text, kind text, the_member text, the_request bytea, the_capabilities text
) RETURNS void LANGUAGE plpgsql AS {body}
DECLARE
    changed record;
    word text;
BEGIN
    UPDATE {schema}.groups SET version = version + 1 WHERE namespace = the_namespace AND name = the_name
        RETURNING key, version INTO changed;
    -- Of a group that was deleted by hand no change is told.
    IF NOT FOUND THEN
        RETURN;
    END IF;
    word := json_build_object('version', changed.version, 'kind', kind, 'member', the_member,
        'request', encode(the_request, 'hex'), 'capabilities', the_capabilities)::text;
    IF octet_length(word) > 7900 THEN
        word := '';
    END IF;
    PERFORM pg_notify('tooz_' || lpad(to_hex(changed.key), 16, '0'), word);
END {body};

-- Enters a member. 'ok', 'missing': no such group, 'refused': another living member has the name.
CREATE OR REPLACE FUNCTION {schema}.join_group(
    the_namespace text, the_name text, the_member text, the_request bytea, my_session bigint, the_capabilities text,
    own bytea, anybody boolean
) RETURNS text LANGUAGE plpgsql AS {body}
DECLARE
    old {schema}.members;
BEGIN
    -- The group's row is locked before any member's, here and everywhere, so that no two wait in a circle.
    PERFORM 1 FROM {schema}.groups WHERE namespace = the_namespace AND name = the_name FOR UPDATE;
    IF NOT FOUND THEN
        RETURN 'missing';
    END IF;
    SELECT * INTO old FROM {schema}.members WHERE namespace = the_namespace AND name = the_name AND member = the_member;
    IF FOUND THEN
        IF old.request = the_request THEN
            RETURN 'ok';
        -- The first half of an id is the coordinator's, the second counts: only an earlier entry of the same coordinator is its own to replace.
        ELSIF anybody OR (substring(old.request FROM 1 FOR 8) = substring(own FROM 1 FOR 8) AND old.request < the_request) THEN
            PERFORM pg_notify('tooz_' || lpad(to_hex(old.session), 16, '0'), encode(old.request, 'hex'));
        ELSIF old.session = my_session OR NOT {schema}.is_over(old.session) THEN
            RETURN 'refused';
        END IF;
        DELETE FROM {schema}.members WHERE namespace = the_namespace AND name = the_name AND member = the_member;
    END IF;
    INSERT INTO {schema}.members (namespace, name, member, request, session, capabilities)
        VALUES (the_namespace, the_name, the_member, the_request, my_session, the_capabilities);
    PERFORM {schema}.tell_change(the_namespace, the_name, 'joined', the_member, the_request, the_capabilities);
    RETURN 'ok';
END {body};

CREATE OR REPLACE FUNCTION {schema}.update_member(
    the_namespace text, the_name text, the_member text, the_request bytea, the_capabilities text
) RETURNS boolean LANGUAGE plpgsql AS {body}
BEGIN
    PERFORM 1 FROM {schema}.groups WHERE namespace = the_namespace AND name = the_name FOR UPDATE;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    UPDATE {schema}.members SET capabilities = the_capabilities
        WHERE namespace = the_namespace AND name = the_name AND member = the_member AND request = the_request;
    IF FOUND THEN
        PERFORM {schema}.tell_change(the_namespace, the_name, 'updated', the_member, the_request, the_capabilities);
        RETURN true;
    END IF;
    RETURN false;
END {body};

CREATE OR REPLACE FUNCTION {schema}.leave_group(
    the_namespace text, the_name text, the_member text, the_request bytea
) RETURNS void LANGUAGE plpgsql AS {body}
BEGIN
    PERFORM 1 FROM {schema}.groups WHERE namespace = the_namespace AND name = the_name FOR UPDATE;
    DELETE FROM {schema}.members
        WHERE namespace = the_namespace AND name = the_name AND member = the_member AND request = the_request;
    IF FOUND THEN
        PERFORM {schema}.tell_change(the_namespace, the_name, 'left', the_member, the_request, '');
    END IF;
END {body};

-- Deletes a group without living members. NULL: no such group; else how many are in the way.
CREATE OR REPLACE FUNCTION {schema}.delete_group(the_namespace text, the_name text) RETURNS bigint LANGUAGE plpgsql AS {body}
DECLARE
    the_key bigint;
    living bigint;
BEGIN
    SELECT key INTO the_key FROM {schema}.groups WHERE namespace = the_namespace AND name = the_name FOR UPDATE;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    SELECT count(*) INTO living FROM {schema}.members
        WHERE namespace = the_namespace AND name = the_name AND NOT {schema}.is_over(session);
    IF living = 0 THEN
        DELETE FROM {schema}.members WHERE namespace = the_namespace AND name = the_name;
        DELETE FROM {schema}.groups WHERE namespace = the_namespace AND name = the_name;
        PERFORM pg_notify('tooz_' || lpad(to_hex(the_key), 16, '0'), 'gone');
    END IF;
    RETURN living;
END {body};

-- Takes away at most so many memberships and so many grants of sessions that are over, or of the asking session at its end, and tells it. Answers whether
-- another such step would take more away. The version of each group is counted up once, by as many as have left: one row, however many die at a time.
-- `patient`: waits for rows that others have locked. Else these are left to a later round, so that they keep up none of the others.
CREATE OR REPLACE FUNCTION {schema}.bury(the_dead bigint[], most integer, patient boolean) RETURNS boolean LANGUAGE plpgsql AS {body}
DECLARE
    rows tid[];
    orphans tid[];
    place record;
    changed record;
    done bigint := 0;
    counted bigint;
BEGIN
    IF patient THEN
        -- The groups' rows are locked before any member's, in the same order by all that wait for them, so that no two wait in a circle.
        FOR place IN
            SELECT DISTINCT doomed.namespace, doomed.name
            FROM (SELECT namespace, name FROM {schema}.members WHERE session = ANY (the_dead) LIMIT most) AS doomed
            ORDER BY doomed.namespace, doomed.name
        LOOP
            PERFORM 1 FROM {schema}.groups AS theirs WHERE theirs.namespace = place.namespace AND theirs.name = place.name FOR UPDATE;
        END LOOP;
    END IF;
    rows := ARRAY(
        SELECT entry.ctid FROM {schema}.members AS entry JOIN {schema}.groups AS theirs USING (namespace, name)
        WHERE entry.session = ANY (the_dead) LIMIT most FOR UPDATE OF theirs SKIP LOCKED
    );
    -- The members of a group that was deleted by hand.
    orphans := ARRAY(
        SELECT entry.ctid FROM {schema}.members AS entry
        WHERE entry.session = ANY (the_dead) AND NOT EXISTS (
            SELECT 1 FROM {schema}.groups AS theirs WHERE theirs.namespace = entry.namespace AND theirs.name = entry.name
        )
        LIMIT most FOR UPDATE OF entry SKIP LOCKED
    );
    rows := rows || orphans;
    -- By their place in the table, which needs no plan. (IS TRUE keeps the index on sessions out of it.)
    FOR place IN
        WITH gone AS (
            DELETE FROM {schema}.members AS entry WHERE entry.ctid = ANY (rows) AND (entry.session = ANY (the_dead)) IS TRUE
            RETURNING entry.namespace, entry.name, entry.member, entry.request
        )
        SELECT gone.namespace, gone.name, array_agg(gone.member) AS members, array_agg(gone.request) AS requests
        FROM gone GROUP BY gone.namespace, gone.name
    LOOP
        done := done + cardinality(place.members);
        UPDATE {schema}.groups AS theirs SET version = theirs.version + cardinality(place.members)
            WHERE theirs.namespace = place.namespace AND theirs.name = place.name
            RETURNING theirs.key, theirs.version - cardinality(place.members) AS before INTO changed;
        CONTINUE WHEN NOT FOUND;
        PERFORM pg_notify('tooz_' || lpad(to_hex(changed.key), 16, '0'), json_build_object(
                'version', changed.before + one.number, 'kind', 'left', 'member', one.member,
                'request', encode(one.request, 'hex'), 'capabilities', ''
            )::text)
            FROM unnest(place.members, place.requests) WITH ORDINALITY AS one (member, request, number);
    END LOOP;
    FOR place IN
        WITH gone AS (
            DELETE FROM {schema}.grants AS had
            WHERE had.ctid = ANY (ARRAY(SELECT ctid FROM {schema}.grants WHERE session = ANY (the_dead) LIMIT most FOR UPDATE SKIP LOCKED))
            RETURNING had.key, had.space
        )
        SELECT gone.key, gone.space, count(*) AS many FROM gone GROUP BY gone.key, gone.space
    LOOP
        done := done + place.many;
        IF place.space = 'election' THEN
            PERFORM pg_notify('tooz_' || lpad(to_hex(place.key), 16, '0'), '');
        END IF;
    END LOOP;
    DELETE FROM {schema}.sessions AS own
        WHERE own.session = ANY (ARRAY(SELECT session FROM {schema}.sessions WHERE session = ANY (the_dead) FOR UPDATE SKIP LOCKED))
        AND NOT EXISTS (SELECT 1 FROM {schema}.members AS entry WHERE entry.session = own.session)
        AND NOT EXISTS (SELECT 1 FROM {schema}.grants AS had WHERE had.session = own.session);
    GET DIAGNOSTICS counted = ROW_COUNT;
    RETURN done + counted > 0 AND EXISTS (SELECT 1 FROM {schema}.sessions AS own WHERE own.session = ANY (the_dead));
END {body};

-- What a session calls at its end, and what members of revision 2 call.
CREATE OR REPLACE FUNCTION {schema}.bury(the_dead bigint[], most integer) RETURNS boolean LANGUAGE sql AS {body}
    SELECT {schema}.bury(the_dead, most, true)
{body};

-- One step of clearing up after the dead of all namespaces, if the last round began longer than `period` seconds ago and no other session is at it.
-- A step looks at a thousand sessions and takes away a few hundred, so that it keeps no other waiting. `more`: the round goes on; `age`: how long ago
-- it began. It runs with the rights of the owner, so that also users that may only read hear of deaths; what is not dead it does not touch.
CREATE OR REPLACE FUNCTION {schema}.clear_up(
    my_session bigint, period double precision, OUT swept boolean, OUT more boolean, OUT age double precision
) LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS {body}
DECLARE
    round record;
    looked_at bigint[];
    dead bigint[];
    next_place bigint;
BEGIN
    swept := false;
    more := false;
    SELECT place, began, extract(epoch FROM clock_timestamp() - began)::double precision AS since INTO round FROM {schema}.sweeps;
    IF NOT FOUND THEN
        INSERT INTO {schema}.sweeps (began) VALUES ('epoch') ON CONFLICT DO NOTHING;
    ELSIF round.place IS NULL AND round.since >= 0 AND round.since < period THEN
        age := round.since;
        RETURN;
    END IF;
    SELECT place, began, extract(epoch FROM clock_timestamp() - began)::double precision AS since INTO round
        FROM {schema}.sweeps FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        age := 0;
        RETURN;
    ELSIF round.place IS NULL AND round.since >= 0 AND round.since < period THEN
        age := round.since;
        RETURN;
    END IF;
    -- What is taken away of the dead waits for no disk and no standby, least of all with rows locked for which others wait.
    PERFORM set_config('synchronous_commit', 'off', true);
    swept := true;
    age := CASE WHEN round.place IS NULL THEN 0 ELSE round.since END;
    looked_at := ARRAY(
        SELECT session FROM {schema}.sessions
        WHERE session > coalesce(round.place, -9223372036854775808) AND session <> my_session ORDER BY session LIMIT 1000
    );
    dead := ARRAY(SELECT one.session FROM unnest(looked_at) AS one (session) WHERE {schema}.is_over(one.session) LIMIT 200);
    IF cardinality(dead) > 0 AND {schema}.bury(dead, 300, false) THEN
        -- Not all is done yet: the same ones again.
        more := true;
        next_place := coalesce(round.place, -9223372036854775808);
    ELSIF cardinality(dead) = 200 THEN
        more := true;
        next_place := dead[200];
    ELSIF cardinality(looked_at) = 1000 THEN
        more := true;
        next_place := looked_at[1000];
    END IF;
    UPDATE {schema}.sweeps SET place = next_place, began = CASE WHEN round.place IS NULL THEN clock_timestamp() ELSE round.began END;
END {body};

-- What members of revision 1 call.
CREATE OR REPLACE FUNCTION {schema}.bury(the_session bigint) RETURNS void LANGUAGE plpgsql AS {body}
BEGIN
    WHILE {schema}.bury(ARRAY[the_session], 1000) LOOP
    END LOOP;
END {body};

CREATE OR REPLACE FUNCTION {schema}.sweep(my_session bigint, the_namespace text) RETURNS bigint LANGUAGE plpgsql AS {body}
DECLARE
    step record;
BEGIN
    SELECT * INTO step FROM {schema}.clear_up(my_session, 0.7);
    RETURN step.swept::integer;
END {body};

-- The last thing, so that it is true.
INSERT INTO {schema}.layout (layout, revision) VALUES ({layout}, {revision})
    ON CONFLICT (one) DO UPDATE SET revision = excluded.revision;
