-- What tooz keeps in a PostgreSQL database. Run it once, as a user who may create; members that are other users then need
-- the privileges that are named at the end. May be run again: it only adds what is missing.
CREATE SCHEMA IF NOT EXISTS {schema};

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

-- Who holds which lock, for those who ask. The advisory lock on the key is what excludes; grants of a few milliseconds never get here.
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

-- Opens a session. The first one since the server started (nobody holds `lifted`) lifts the counter above the time in microseconds, so that
-- tokens grow also over a crash that lost the end of the counter. While `lifting` is held nobody else opens, so nobody takes a token meanwhile.
CREATE OR REPLACE FUNCTION {schema}.open_session(
    my_session bigint, my_namespace text, my_member text, lifting bigint, lifted bigint
) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(lifting);
    IF NOT pg_try_advisory_lock(my_session) THEN
        RETURN false;
    END IF;
    IF pg_try_advisory_lock(lifted) THEN
        PERFORM setval('{schema_text}.fence',
            greatest(nextval('{schema_text}.fence'), (extract(epoch FROM clock_timestamp()) * 1000000)::bigint));
        PERFORM pg_advisory_lock_shared(lifted);
        PERFORM pg_advisory_unlock(lifted);
    ELSE
        PERFORM pg_advisory_lock_shared(lifted);
    END IF;
    INSERT INTO {schema}.sessions (session, namespace, member, pid) VALUES (my_session, my_namespace, my_member, pg_backend_pid());
    RETURN true;
END $$;

-- Counts a change of a group and tells it to those who listen. What is too long for a notification is told without its content.
CREATE OR REPLACE FUNCTION {schema}.tell_change(
    the_namespace text, the_name text, kind text, the_member text, the_request bytea, the_capabilities text
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    changed record;
    word text;
BEGIN
    UPDATE {schema}.groups SET version = version + 1 WHERE namespace = the_namespace AND name = the_name
        RETURNING key, version INTO changed;
    word := json_build_object('version', changed.version, 'kind', kind, 'member', the_member,
        'request', encode(the_request, 'hex'), 'capabilities', the_capabilities)::text;
    IF octet_length(word) > 7900 THEN
        word := '';
    END IF;
    PERFORM pg_notify('tooz_' || lpad(to_hex(changed.key), 16, '0'), word);
END $$;

-- Enters a member. 'ok', 'missing': no such group, 'refused': another living member has the name.
CREATE OR REPLACE FUNCTION {schema}.join_group(
    the_namespace text, the_name text, the_member text, the_request bytea, my_session bigint, the_capabilities text,
    own bytea, anybody boolean
) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    old {schema}.members;
BEGIN
    -- The group's row is locked before any member's, here and everywhere, so that nobody can wait in a circle.
    PERFORM 1 FROM {schema}.groups WHERE namespace = the_namespace AND name = the_name FOR UPDATE;
    IF NOT FOUND THEN
        RETURN 'missing';
    END IF;
    SELECT * INTO old FROM {schema}.members WHERE namespace = the_namespace AND name = the_name AND member = the_member;
    IF FOUND THEN
        IF old.request = the_request THEN
            RETURN 'ok';
        ELSIF anybody OR old.request = own THEN
            PERFORM pg_notify('tooz_' || lpad(to_hex(old.session), 16, '0'), encode(old.request, 'hex'));
        ELSIF old.session = my_session OR NOT pg_try_advisory_xact_lock_shared(old.session) THEN
            RETURN 'refused';
        END IF;
        DELETE FROM {schema}.members WHERE namespace = the_namespace AND name = the_name AND member = the_member;
    END IF;
    INSERT INTO {schema}.members (namespace, name, member, request, session, capabilities)
        VALUES (the_namespace, the_name, the_member, the_request, my_session, the_capabilities);
    PERFORM {schema}.tell_change(the_namespace, the_name, 'joined', the_member, the_request, the_capabilities);
    RETURN 'ok';
END $$;

CREATE OR REPLACE FUNCTION {schema}.update_member(
    the_namespace text, the_name text, the_member text, the_request bytea, the_capabilities text
) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    PERFORM 1 FROM {schema}.groups WHERE namespace = the_namespace AND name = the_name FOR UPDATE;
    UPDATE {schema}.members SET capabilities = the_capabilities
        WHERE namespace = the_namespace AND name = the_name AND member = the_member AND request = the_request;
    IF FOUND THEN
        PERFORM {schema}.tell_change(the_namespace, the_name, 'updated', the_member, the_request, the_capabilities);
        RETURN true;
    END IF;
    RETURN false;
END $$;

CREATE OR REPLACE FUNCTION {schema}.leave_group(
    the_namespace text, the_name text, the_member text, the_request bytea
) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM 1 FROM {schema}.groups WHERE namespace = the_namespace AND name = the_name FOR UPDATE;
    DELETE FROM {schema}.members
        WHERE namespace = the_namespace AND name = the_name AND member = the_member AND request = the_request;
    IF FOUND THEN
        PERFORM {schema}.tell_change(the_namespace, the_name, 'left', the_member, the_request, '');
    END IF;
END $$;

-- Deletes a group without living members. NULL: no such group; else how many are in the way.
CREATE OR REPLACE FUNCTION {schema}.delete_group(the_namespace text, the_name text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    the_key bigint;
    living bigint;
BEGIN
    SELECT key INTO the_key FROM {schema}.groups WHERE namespace = the_namespace AND name = the_name FOR UPDATE;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    SELECT count(*) INTO living FROM {schema}.members
        WHERE namespace = the_namespace AND name = the_name AND NOT pg_try_advisory_xact_lock_shared(session);
    IF living = 0 THEN
        DELETE FROM {schema}.members WHERE namespace = the_namespace AND name = the_name;
        DELETE FROM {schema}.groups WHERE namespace = the_namespace AND name = the_name;
        PERFORM pg_notify('tooz_' || lpad(to_hex(the_key), 16, '0'), 'gone');
    END IF;
    RETURN living;
END $$;

-- Takes away what a session had in the tables, and tells it. Only for a session that is over, or by the session itself at its end.
CREATE OR REPLACE FUNCTION {schema}.bury(the_session bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    place record;
    gone record;
BEGIN
    FOR place IN SELECT namespace, name FROM {schema}.members WHERE session = the_session ORDER BY namespace, name LOOP
        PERFORM 1 FROM {schema}.groups WHERE namespace = place.namespace AND name = place.name FOR UPDATE;
        FOR gone IN DELETE FROM {schema}.members
            WHERE namespace = place.namespace AND name = place.name AND session = the_session RETURNING member, request
        LOOP
            PERFORM {schema}.tell_change(place.namespace, place.name, 'left', gone.member, gone.request, '');
        END LOOP;
    END LOOP;
    FOR gone IN DELETE FROM {schema}.grants WHERE session = the_session RETURNING key, space LOOP
        IF gone.space = 'election' THEN
            PERFORM pg_notify('tooz_' || lpad(to_hex(gone.key), 16, '0'), '');
        END IF;
    END LOOP;
    DELETE FROM {schema}.sessions WHERE session = the_session;
END $$;

-- Takes away what dead sessions of a namespace left in the tables. A lock that can be had for a moment was nobody's any more.
CREATE OR REPLACE FUNCTION {schema}.sweep(my_session bigint, the_namespace text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    dead bigint;
    buried bigint := 0;
BEGIN
    FOR dead IN SELECT session FROM {schema}.sessions
        WHERE namespace = the_namespace AND session <> my_session AND pg_try_advisory_xact_lock_shared(session)
        -- The same order for all, so that few who sweep at the same time wait for each other in a circle.
        ORDER BY session
    LOOP
        PERFORM {schema}.bury(dead);
        buried := buried + 1;
    END LOOP;
    RETURN buried;
END $$;

-- For members that are other users than the owner, with their role in the place of MEMBERS:
-- GRANT USAGE ON SCHEMA {schema} TO MEMBERS;
-- GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO MEMBERS;
-- GRANT USAGE, SELECT, UPDATE ON SEQUENCE {schema}.fence TO MEMBERS;
