//! Ways to the server, rights, and databases that are not as they should be.

use std::sync::Arc;
use std::time::Duration;

use tooz_core::driver::Verdict;
use tooz_core::{ConnectOptions, ErrorKind, connect};
use tooz_testbed::{Kind, Setup};

use crate::bed::{Store, within};

pub(crate) async fn a_standby_is_refused(_shared: Store) {
    let store = Store::own(Setup::new(Kind::Postgres));
    std::fs::write(store.server.folder().join("data/standby.signal"), "").unwrap();
    let server = Arc::clone(&store.server);
    tokio::task::spawn_blocking(move || server.restart().unwrap()).await.unwrap();
    let error = within(connect(&store.url(), "ours")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.to_string().contains("standby"), "{error}");
}

pub(crate) async fn several_hosts_are_refused(_store: Store) {
    let error = connect("postgresql://one,two/db", "ours").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    assert!(error.to_string().contains("primary"), "{error}");
}

pub(crate) async fn a_wrong_password_is_told_as_such(_shared: Store) {
    let store = Store::own(Setup::new(Kind::Postgres));
    store.sql("CREATE ROLE guarded LOGIN SUPERUSER PASSWORD 'right'");
    let rules = "local all all trust\nhost all postgres 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n";
    let file = store.server.folder().join("data/pg_hba.conf");
    std::fs::write(file, rules).unwrap();
    store.sql("SELECT pg_reload_conf()");
    let url = |password: &str| format!("postgres://guarded:{password}@{}/postgres", store.server.address());
    // The server re-reads its rules in its own time.
    let error = within(async {
        loop {
            match connect(&url("wrong"), "ours").await {
                Ok(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                Err(error) => break error,
            }
        }
    })
    .await;
    assert_eq!(error.kind(), ErrorKind::Unauthorized, "{error}");
    assert!(!error.to_string().contains("wrong"), "{error}");
    let ours = connect(&url("right"), "ours").await.unwrap();
    drop(within(ours.lock("x").unwrap().acquire()).await.unwrap());
}

pub(crate) async fn without_rights_to_create_the_ddl_is_named_and_is_enough(_shared: Store) {
    let store = Store::own(Setup::new(Kind::Postgres));
    store.sql("CREATE ROLE plain LOGIN");
    let url = format!("postgres://plain@{}/postgres", store.server.address());
    let ours = connect(&url, "ours").await.unwrap();
    assert!(ours.groups().await.unwrap().is_empty(), "looking needs no tables");
    assert!(ours.lock("x").unwrap().holders().await.unwrap().is_empty());
    let error = ours.lock("x").unwrap().try_acquire().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthorized, "{error}");
    assert!(error.to_string().contains("tooz schema postgres"), "{error}");
    // What an administrator does: runs it, and the grants for the role of the members.
    store.sql(&tooz_postgres::ddl("tooz"));
    let error = ours.lock("x").unwrap().try_acquire().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthorized, "{error}");
    store.sql(&tooz_postgres::privileges("tooz", "plain"));
    let guard = within(ours.lock("x").unwrap().acquire()).await.unwrap();
    let membership = within(ours.group("g").unwrap().join_or_create(&1)).await.unwrap();
    within(membership.campaign()).await.unwrap().resign().await.unwrap();
    membership.leave().await.unwrap();
    ours.group("g").unwrap().delete().await.unwrap();
    guard.release().await.unwrap();
}

pub(crate) async fn a_schema_may_have_any_name(store: Store) {
    let other = ConnectOptions::new(&store.url()).unwrap().member("other").unwrap().connect().await.unwrap();
    let names = [
        "it's \"my\" Schema, 100%",
        "a$$b",
        "$tooz$",
        "my$user",
        "{schema}{body}",
        "back\\slash\\'",
        "$name$ $toozx$",
        "user",
        "Ä ö",
    ];
    for name in names {
        let ours = ConnectOptions::new(&store.url()).unwrap().option("schema", name).member("ours").unwrap();
        let ours = within(ours.connect()).await.unwrap();
        let _guard = within(ours.lock("x").unwrap().acquire()).await.unwrap();
        let membership = within(ours.group("g").unwrap().join_or_create(&1)).await.unwrap();
        assert_eq!(ours.lock("x").unwrap().holders().await.unwrap().len(), 1);
        let found = within(ours.check_up()).await.unwrap();
        assert!(found.findings.iter().all(|one| one.verdict != Verdict::Wrong), "{name}: {found:?}");
        // What is printed for an operator makes the same once more.
        store.sql(&format!("SET client_min_messages = warning; {}", tooz_postgres::ddl(name)));
        membership.leave().await.unwrap();
        // Another schema is another store.
        assert!(other.lock("x").unwrap().try_acquire().await.unwrap().is_some());
        assert!(other.groups().await.unwrap().is_empty());
    }
    let error = ConnectOptions::new(&store.url()).unwrap().option("schema", "$user").member("ours").unwrap();
    let error = within(error.connect()).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Config && error.to_string().contains("$user"), "{error}");
}

/// Each privilege is named by the statement that gives it, and that statement is enough.
pub(crate) async fn a_missing_grant_is_named(_shared: Store) {
    let store = Store::own(Setup::new(Kind::Postgres));
    store.connect("first").await.group("g").unwrap().create().await.unwrap();
    store.sql("CREATE ROLE \"pla in\" LOGIN");
    let url = format!("postgres://pla%20in@{}/postgres?namespace=own", store.server.address());
    let ours = within(connect(&url, "ours")).await.unwrap();
    // Nothing is taken for empty that may not be looked at.
    for error in [ours.groups().await.unwrap_err(), ours.lock("x").unwrap().holders().await.unwrap_err()] {
        assert_eq!(error.kind(), ErrorKind::Unauthorized, "{error}");
        assert!(error.to_string().contains("GRANT USAGE ON SCHEMA \"tooz\" TO \"pla in\";"), "{error}");
    }
    let mut given = Vec::new();
    let guard = loop {
        let error = match within(ours.lock("x").unwrap().try_acquire()).await {
            Ok(guard) => break guard.unwrap(),
            Err(error) => error,
        };
        assert_eq!(error.kind(), ErrorKind::Unauthorized, "{error}");
        let found = within(within(connect(&url, "looker")).await.unwrap().check_up()).await.unwrap();
        let of_tables: Vec<_> = found.findings.iter().filter(|one| one.what.contains("schema \"tooz\"")).collect();
        assert!(of_tables.len() == 1 && of_tables[0].verdict == Verdict::Wrong, "{found:?}");
        let text = error.to_string();
        let named = text.split("GRANT ").nth(1).unwrap_or_else(|| panic!("{text}"));
        let grant = format!("GRANT {}", named.split_once(';').unwrap().0);
        assert!(of_tables[0].mend.contains(&grant), "{found:?}");
        assert!(!given.contains(&grant), "{grant} was not enough: {text}");
        store.sql(&grant);
        given.push(grant);
    };
    assert_eq!(given.len(), 3, "{given:?}");
    let membership = within(ours.group("g").unwrap().join(&1)).await.unwrap();
    membership.leave().await.unwrap();
    guard.release().await.unwrap();
    ours.close().await.unwrap();
    // One that is taken away later is told as well.
    let ours = within(connect(&url, "ours")).await.unwrap();
    drop(within(ours.lock("x").unwrap().acquire()).await.unwrap());
    store.sql("REVOKE USAGE ON SCHEMA tooz FROM \"pla in\"");
    let error = within(ours.groups()).await.unwrap_err();
    assert!(error.to_string().contains("GRANT USAGE"), "{error}");
}

pub(crate) async fn a_database_that_is_not_utf_8_is_refused(store: Store) {
    for encoding in ["LATIN1", "SQL_ASCII"] {
        let name = format!("in_{}", encoding.to_lowercase());
        store.sql(&format!("CREATE DATABASE {name} ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0"));
        let url = format!("postgres://postgres@{}/{name}", store.server.address());
        let error = within(connect(&url, "ours")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
        assert!(error.to_string().contains(encoding) && error.to_string().contains("UTF8"), "{error}");
    }
}

/// What an administrator has set for the role is for its other programs.
pub(crate) async fn limits_that_are_set_for_the_role_end_no_wait(_shared: Store) {
    let store = Store::own(Setup::new(Kind::Postgres));
    store.sql(
        "CREATE ROLE hasty LOGIN SUPERUSER;
        ALTER ROLE hasty SET statement_timeout = '300ms'; ALTER ROLE hasty SET lock_timeout = '300ms';
        ALTER ROLE hasty SET idle_session_timeout = '300ms'; ALTER ROLE hasty SET idle_in_transaction_session_timeout = '300ms';
        ALTER ROLE hasty SET default_transaction_read_only = on; ALTER ROLE hasty SET default_transaction_isolation = 'serializable';
        ALTER ROLE hasty SET standard_conforming_strings = off; ALTER ROLE hasty SET search_path = 'elsewhere'",
    );
    if store.sql("SELECT current_setting('transaction_timeout', true) IS NOT NULL") == "t" {
        store.sql("ALTER ROLE hasty SET transaction_timeout = '300ms'");
    }
    let url = format!("postgres://hasty@{}/postgres?session_timeout=3s", store.server.address());
    let (one, two) = (within(connect(&url, "one")).await.unwrap(), within(connect(&url, "two")).await.unwrap());
    let guard = within(one.lock("x").unwrap().acquire()).await.unwrap();
    let mut watch = {
        within(two.group("g").unwrap().create()).await.unwrap();
        within(two.group("g").unwrap().watch()).await.unwrap()
    };
    within(watch.next()).await.unwrap();
    let lock = two.lock("x").unwrap();
    let waiting = tokio::spawn(async move { lock.acquire().await.unwrap() });
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(guard.is_held());
    // It stands in the queue, where no other passes.
    assert!(store.sql("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted") != "0");
    guard.release().await.unwrap();
    drop(within(waiting).await.unwrap());
    let _membership = within(one.group("g").unwrap().join(&1)).await.unwrap();
    within(watch.next()).await.unwrap();
}

pub(crate) async fn a_unix_socket_will_do(_shared: Store) {
    let store = Store::own(Setup::new(Kind::Postgres).unix_socket());
    let ours = connect(&store.server.url(), "ours").await.unwrap();
    drop(within(ours.lock("x").unwrap().acquire()).await.unwrap());
    let folder = store.server.folder().display().to_string().replace('/', "%2F");
    let port = store.server.address().port();
    let same = connect(&format!("postgresql://postgres@{folder}:{port}/postgres"), "same").await.unwrap();
    drop(within(same.lock("x").unwrap().acquire()).await.unwrap());
}

pub(crate) async fn tls_is_checked_or_said_to_be_missing(_shared: Store) {
    let store = Store::own(Setup::new(Kind::Postgres).tls());
    let connecting = within(connect(&store.server.url(), "ours")).await;
    if cfg!(feature = "tls") {
        let ours = connecting.unwrap();
        drop(within(ours.lock("x").unwrap().acquire()).await.unwrap());
        let stranger = store.server.url().split("&sslrootcert").next().unwrap().to_owned();
        let error = within(connect(&stranger, "ours")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    } else {
        let error = connecting.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
        assert!(error.to_string().contains("feature \"tls\""), "{error}");
    }
}

pub(crate) async fn a_database_that_is_not_there_is_told(store: Store) {
    let url = format!("postgres://postgres@{}/nowhere", store.server.address());
    let error = within(connect(&url, "ours")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    assert!(error.to_string().contains("nowhere"), "{error}");
}

pub(crate) async fn the_check_up_tells_what_it_found(store: Store) {
    let ours = store.connect("ours").await;
    drop(within(ours.lock("x").unwrap().acquire()).await.unwrap());
    let found = within(ours.check_up()).await.unwrap();
    assert!(found.server.starts_with("PostgreSQL "), "{found:?}");
    assert!(found.findings.len() > 5 && found.findings.iter().all(|one| one.verdict != Verdict::Wrong), "{found:?}");
}
