-- What tooz keeps in a database of MySQL or MariaDB: layout {layout}, revision {revision}. Run it as a user that may create. May be run again: it adds
-- what is missing and touches no rows. Names are kept as bytes, so that no collation takes two of them for one.
CREATE DATABASE IF NOT EXISTS {database};

-- How all this is kept. Members that speak another layout would not see each other's locks, so they refuse to open a session.
CREATE TABLE IF NOT EXISTS {database}.`tooz_layout` (
    one TINYINT NOT NULL PRIMARY KEY,
    layout INT NOT NULL,
    revision INT NOT NULL
) ENGINE = InnoDB;
INSERT IGNORE INTO {database}.`tooz_layout` (one, layout, revision) VALUES (1, {layout}, {revision});

-- What is taken from the server's own counter for a fencing token, and below what all tokens have been so far.
CREATE TABLE IF NOT EXISTS {database}.`tooz_fence` (
    one TINYINT NOT NULL PRIMARY KEY,
    sub BIGINT NOT NULL,
    reserved BIGINT NOT NULL
) ENGINE = InnoDB;

CREATE TABLE IF NOT EXISTS {database}.`tooz_groups` (
    namespace VARBINARY(255) NOT NULL,
    name VARBINARY(255) NOT NULL,
    version BIGINT NOT NULL,
    PRIMARY KEY (namespace, name)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC;

-- The sessions. One is alive as long as its connection holds the named lock of that name.
CREATE TABLE IF NOT EXISTS {database}.`tooz_sessions` (
    session CHAR(41) CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY,
    namespace VARBINARY(255) NOT NULL,
    member VARBINARY(255) NOT NULL,
    conn BIGINT NOT NULL,
    since BIGINT NOT NULL,
    KEY (conn)
) ENGINE = InnoDB;

CREATE TABLE IF NOT EXISTS {database}.`tooz_members` (
    namespace VARBINARY(255) NOT NULL,
    name VARBINARY(255) NOT NULL,
    member VARBINARY(255) NOT NULL,
    request BINARY(16) NOT NULL,
    session CHAR(41) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    conn BIGINT NOT NULL,
    capabilities LONGTEXT CHARACTER SET utf8mb4 NOT NULL,
    PRIMARY KEY (namespace, name, member),
    KEY (session)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC;

-- The holders of locks, for those that ask. The named lock is what excludes; grants of a few milliseconds never get here.
CREATE TABLE IF NOT EXISTS {database}.`tooz_grants` (
    lk CHAR(41) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    request BINARY(16) NOT NULL,
    session CHAR(41) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    conn BIGINT NOT NULL,
    held CHAR(41) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    exclusive TINYINT NOT NULL,
    token BIGINT NOT NULL,
    since BIGINT NOT NULL,
    member VARBINARY(255) NOT NULL,
    namespace VARBINARY(255) NOT NULL,
    space VARBINARY(8) NOT NULL,
    name VARBINARY(255) NOT NULL,
    PRIMARY KEY (lk, request),
    KEY (session),
    KEY (namespace)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC;

-- Which named locks stand for the sharers of a lock. One that no session holds is no share.
CREATE TABLE IF NOT EXISTS {database}.`tooz_sharers` (
    lk CHAR(41) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    name CHAR(41) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    session CHAR(41) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    PRIMARY KEY (lk, name),
    KEY (session)
) ENGINE = InnoDB;

-- The waiters for a lock, first come first, for clients that ask. A wait lasts as long as its connection holds the named lock `waiter`.
CREATE TABLE IF NOT EXISTS {database}.`tooz_waits` (
    id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
    gate CHAR(41) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    waiter CHAR(41) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    conn BIGINT NOT NULL,
    session CHAR(41) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    session_conn BIGINT NOT NULL,
    member VARBINARY(255) NOT NULL,
    exclusive TINYINT NOT NULL,
    KEY (gate),
    KEY (waiter),
    KEY (session)
) ENGINE = InnoDB;
