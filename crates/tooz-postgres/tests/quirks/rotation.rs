//! Passwords and certificates that are changed while members live.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tooz_core::{ConnectOptions, Coordinator, Credentials, ErrorKind, GroupEvent};
use tooz_testbed::{Kind, Setup};

use crate::bed::{Store, within};

/// A server that asks all but its superuser for a password.
struct Guarded {
    store: Store,
    file: PathBuf,
}

impl Guarded {
    async fn start() -> Self {
        let store = Store::own(Setup::new(Kind::Postgres));
        store.sql("SET password_encryption = 'scram-sha-256'; CREATE ROLE guarded LOGIN SUPERUSER PASSWORD 'first'");
        let rules =
            "local all all trust\nhost all postgres 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n";
        std::fs::write(store.server.folder().join("data/pg_hba.conf"), rules).unwrap();
        let file = store.server.folder().join("password");
        let guarded = Guarded { store, file };
        guarded.store.sql("SELECT pg_reload_conf()");
        guarded.write("wrong");
        // The server re-reads its rules in its own time.
        within(async {
            while guarded.options().member("probe").unwrap().connect().await.is_ok() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
        guarded.write("first");
        guarded
    }

    fn write(&self, password: &str) {
        std::fs::write(&self.file, format!("{password}\n")).unwrap();
    }

    fn options(&self) -> ConnectOptions {
        let (address, file) = (self.store.server.address(), self.file.display());
        let url =
            format!("postgres://guarded@{address}/postgres?session_timeout=2s&namespace=own&password_file={file}");
        ConnectOptions::new(&url).unwrap()
    }

    async fn connect(&self, member: &str) -> Coordinator {
        within(self.options().member(member).unwrap().connect()).await.unwrap()
    }

    fn rotate_at_the_server(&self, password: &str) {
        self.store.sql(&format!("SET password_encryption = 'scram-sha-256'; ALTER ROLE guarded PASSWORD '{password}'"));
    }

    /// Ends all connections of the members.
    fn end_all(&self) {
        self.store.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'tooz:%'");
    }
}

pub(crate) async fn a_password_that_was_changed_at_the_server_and_in_its_file_needs_no_restart(_shared: Store) {
    let guarded = Guarded::start().await;
    let (ours, other) = (guarded.connect("ours").await, guarded.connect("other").await);
    let group = ours.group("g").unwrap();
    let membership = within(group.join_or_create(&1)).await.unwrap();
    let mut watch = within(other.group("g").unwrap().watch()).await.unwrap();
    assert!(matches!(within(watch.next()).await, Some(GroupEvent::Snapshot(members)) if members.len() == 1));
    let guard = within(ours.lock("x").unwrap().acquire()).await.unwrap();

    guarded.rotate_at_the_server("second");
    guarded.write("second");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(guard.is_held() && membership.is_member(), "a change alone takes nothing");
    // New connections of old coordinators: one that waits, and one that listens.
    let lock = other.lock("x").unwrap();
    let waiting = tokio::spawn(async move { lock.acquire().await.unwrap() });
    tokio::time::sleep(Duration::from_millis(300)).await;
    guard.release().await.unwrap();
    within(waiting).await.unwrap().release().await.unwrap();

    guarded.end_all();
    within(async {
        while !membership.is_member()
            || other.group("g").unwrap().members().await.is_ok_and(|members| members.is_empty())
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let third = guarded.connect("third").await;
    let _third = within(third.group("g").unwrap().join(&3)).await.unwrap();
    within(async {
        loop {
            match watch.next().await.unwrap() {
                GroupEvent::Joined(entry) if entry.member.as_str() == "third" => break,
                GroupEvent::Reset(members) if members.iter().any(|entry| entry.member.as_str() == "third") => break,
                _ => {}
            }
        }
    })
    .await;
    drop(within(ours.lock("x").unwrap().acquire()).await.unwrap());
    // The old one is refused, and named nowhere.
    guarded.write("first");
    let error = within(guarded.options().member("late").unwrap().connect()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthorized, "{error}");
    assert!(!format!("{error} {error:?}").contains("first"), "{error:?}");
}

pub(crate) async fn the_application_is_asked_for_the_password_at_each_connection(_shared: Store) {
    let guarded = Guarded::start().await;
    let vault = Arc::new(Mutex::new("first"));
    let url = format!("postgres://{}/postgres?session_timeout=2s&namespace=own", guarded.store.server.address());
    let theirs = Arc::clone(&vault);
    let options = ConnectOptions::new(&url)
        .unwrap()
        .credentials(move || Ok(Credentials::new("guarded", *theirs.lock().unwrap())))
        .member("ours")
        .unwrap();
    let ours = within(options.connect()).await.unwrap();
    let guard = within(ours.lock("x").unwrap().acquire()).await.unwrap();
    *vault.lock().unwrap() = "second";
    guarded.rotate_at_the_server("second");
    guarded.end_all();
    within(guard.loss().wait()).await;
    drop(within(ours.lock("x").unwrap().acquire()).await.unwrap());
}

/// The server gets another authority and another certificate; clients have the new one in the same file.
#[cfg(feature = "tls")]
pub(crate) async fn certificates_are_read_again_at_each_connection(_shared: Store) {
    let store = Store::own(Setup::new(Kind::Postgres).tls());
    let (other, ca) = (Setup::new(Kind::Postgres).tls().start().unwrap(), store.server.folder().join("our-ca.pem"));
    std::fs::copy(store.server.ca_file().unwrap(), &ca).unwrap();
    let url = format!(
        "postgres://postgres@{}/postgres?sslmode=verify-full&ca={}&session_timeout=2s",
        store.server.address(),
        ca.display()
    );
    let ours = within(tooz_core::connect(&url, "ours")).await.unwrap();
    let guard = within(ours.lock("x").unwrap().acquire()).await.unwrap();
    for file in ["server.pem", "server.key"] {
        // Written over, so that the files stay those of the server's user.
        let renewed = std::fs::read(other.folder().join(file)).unwrap();
        std::fs::write(store.server.folder().join(file), renewed).unwrap();
    }
    store.sql("SELECT pg_reload_conf()");
    std::fs::copy(other.ca_file().unwrap(), &ca).unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(guard.is_held());
    let mut psql = store.server.tool("psql").unwrap();
    psql.env("PGSSLROOTCERT", &ca).args(["-d", "postgres", "-qc"]);
    psql.arg("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'tooz:ours'");
    assert!(psql.output().unwrap().status.success());
    within(guard.loss().wait()).await;
    drop(within(ours.lock("x").unwrap().acquire()).await.unwrap());
    // What the files say now is what counts.
    std::fs::copy(store.server.ca_file().unwrap(), &ca).unwrap();
    assert!(within(tooz_core::connect(&url, "late")).await.is_err());
}
