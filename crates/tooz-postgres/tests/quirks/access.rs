//! Ways to the server, rights, and databases that are not as they should be.

use std::sync::Arc;
use std::time::Duration;

use tooz_core::{ConnectOptions, ErrorKind, Verdict, connect};
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
    store.sql(&tooz_postgres::grants("tooz", "plain"));
    let guard = within(ours.lock("x").unwrap().acquire()).await.unwrap();
    let membership = within(ours.group("g").unwrap().join_or_create(&1)).await.unwrap();
    within(membership.campaign()).await.unwrap().resign().await.unwrap();
    membership.leave().await.unwrap();
    ours.group("g").unwrap().delete().await.unwrap();
    guard.release().await.unwrap();
}

pub(crate) async fn a_schema_may_have_any_name(store: Store) {
    let options =
        ConnectOptions::new(&store.url()).unwrap().option("schema", "it's \"my\" Schema, 100%").member("ours").unwrap();
    let other = ConnectOptions::new(&store.url()).unwrap().member("other").unwrap().connect().await.unwrap();
    let ours = options.connect().await.unwrap();
    let _guard = within(ours.lock("x").unwrap().acquire()).await.unwrap();
    let _membership = within(ours.group("g").unwrap().join_or_create(&1)).await.unwrap();
    assert_eq!(ours.lock("x").unwrap().holders().await.unwrap().len(), 1);
    // Another schema is another store.
    assert!(other.lock("x").unwrap().try_acquire().await.unwrap().is_some());
    assert!(other.groups().await.unwrap().is_empty());
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
