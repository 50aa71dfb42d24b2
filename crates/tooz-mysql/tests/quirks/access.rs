//! Who may do what, and servers that are not as they should be.

use tooz_core::driver::Verdict;
use tooz_core::{Driver, ErrorKind, connect};
use tooz_testbed::{Kind, Setup};

use crate::bed::{Store, within};

static CARD: Driver = tooz_mysql::DRIVER;

pub(crate) async fn without_rights_to_create_the_ddl_is_named_and_is_enough(_: Store) {
    let store = Store::own(Setup::new(Kind::MySql));
    store.sql("CREATE USER app@'%' IDENTIFIED BY 'secret word'");
    let url = store.url_as("app:secret%20word");
    let member = within(connect(&url, "m")).await.unwrap();
    let error = within(member.lock("x").unwrap().try_acquire()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthorized, "{error}");
    assert!(error.to_string().contains("tooz schema mysql") && !error.to_string().contains("secret"), "{error}");
    store.sql(&tooz_mysql::ddl("tooz"));
    store.sql(&tooz_mysql::ddl("tooz"));
    let error = within(member.lock("x").unwrap().try_acquire()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthorized, "{error}");
    store.sql(&tooz_mysql::privileges("tooz", "app"));
    let guard = within(member.lock("x").unwrap().acquire()).await.unwrap();
    let reader = within(member.lock("r").unwrap().shared().acquire()).await.unwrap();
    let membership = within(member.group("g").unwrap().join_or_create(&1)).await.unwrap();
    // A wait is ended by another connection of the same user.
    let other = within(connect(&url, "other")).await.unwrap();
    let lock = other.lock("x").unwrap();
    assert!(within(lock.acquire_within(std::time::Duration::from_millis(300))).await.unwrap().is_none());
    reader.release().await.unwrap();
    guard.release().await.unwrap();
    membership.leave().await.unwrap();
    member.close().await.unwrap();
}

pub(crate) async fn what_is_missing_is_told_with_the_command_for_that_database(_: Store) {
    let store = Store::own(Setup::new(Kind::MySql));
    store.sql("CREATE USER app@'%' IDENTIFIED BY 'word'");
    store.sql(&tooz_mysql::ddl("lim"));
    store.sql(&tooz_mysql::privileges("lim", "app"));
    let url = store.url_as("app:word").replace("/tooz?", "/lim?");
    let member = within(connect(&url, "m")).await.unwrap();
    let checkup = within(member.check_up()).await.unwrap();
    let named: Vec<&str> = checkup.findings.iter().map(|finding| finding.what.as_str()).collect();
    assert!(named.iter().any(|what| what.contains("all privileges")), "{named:?}");
    store.sql("REVOKE INSERT ON lim.tooz_grants FROM app@'%'; REVOKE DELETE ON lim.tooz_waits FROM app@'%'");
    store.sql("REVOKE UPDATE ON lim.tooz_members FROM app@'%'; REVOKE INSERT ON lim.tooz_groups FROM app@'%'");
    let checkup = within(member.check_up()).await.unwrap();
    let found = checkup.findings.iter().find(|finding| finding.what.contains("lacks privileges")).unwrap();
    for right in ["INSERT on tooz_grants", "DELETE on tooz_waits", "UPDATE on tooz_members", "INSERT on tooz_groups"] {
        assert!(found.what.contains(right), "{}", found.what);
    }
    assert_eq!(found.what.matches(" on tooz_").count(), 4, "{}", found.what);
    assert!(found.mend.contains("--schema \"lim\""), "{}", found.mend);
    let error = within(member.group("g").unwrap().create()).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Unauthorized && error.to_string().contains("--schema \"lim\""), "{error}");
}

pub(crate) async fn a_wrong_password_is_told_as_such(store: Store) {
    let error = within(connect(&store.url_as("root:hunter2"), "m")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthorized, "{error}");
    assert!(error.to_string().contains("password") && !format!("{error:?}").contains("hunter2"), "{error:?}");
}

pub(crate) async fn a_locked_account_is_told_as_such(_: Store) {
    let store = Store::own(Setup::new(Kind::MySql));
    store.sql("CREATE USER app@'%' IDENTIFIED BY 'word' ACCOUNT LOCK");
    let error = within(connect(&store.url_as("app:word"), "m")).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Unauthorized && error.to_string().contains("unlocked"), "{error}");
}

pub(crate) async fn a_read_only_server_is_refused(_: Store) {
    let store = Store::own(Setup::new(Kind::MySql).argument("--read-only=1"));
    let error = within(connect(&store.url(), "m")).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Unavailable && error.to_string().contains("read-only"), "{error}");
}

pub(crate) async fn several_hosts_are_refused(_: Store) {
    let error = within(connect("mariadb://a,b/tooz", "m")).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Config && error.to_string().contains("primary"), "{error}");
}

pub(crate) async fn a_unix_socket_will_do(_: Store) {
    let store = Store::own(Setup::new(Kind::MySql).unix_socket());
    let url = format!("{}&session_timeout=2s", store.server.url());
    let (a, b) = (within(connect(&url, "a")).await.unwrap(), within(connect(&url, "b")).await.unwrap());
    let guard = within(a.lock("x").unwrap().acquire()).await.unwrap();
    assert!(within(b.lock("x").unwrap().try_acquire()).await.unwrap().is_none());
    guard.release().await.unwrap();
}

pub(crate) async fn tls_is_checked_or_said_to_be_missing(_: Store) {
    let store = Store::own(Setup::new(Kind::MySql).tls());
    let url = store.server.url();
    if !cfg!(feature = "tls") {
        let error = within(connect(&url, "m")).await.unwrap_err();
        assert!(error.kind() == ErrorKind::Config && error.to_string().contains("feature \"tls\""), "{error}");
        return;
    }
    let ours = within(connect(&url, "m")).await.unwrap();
    within(ours.lock("x").unwrap().acquire()).await.unwrap().release().await.unwrap();
    let other = Setup::new(Kind::MySql).tls().start().unwrap();
    let wrong = url.replace(&store.server.address().to_string(), &other.address().to_string());
    let error = within(connect(&wrong, "m")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
}

pub(crate) async fn the_check_up_tells_what_it_found(_: Store) {
    let store = Store::own(Setup::new(Kind::MySql).argument("--max-connections=12"));
    let ours = store.connect("ours").await;
    let checkup = within(ours.check_up()).await.unwrap();
    let family = if store.is_mariadb() { "MariaDB " } else { "MySQL " };
    assert!(checkup.server.starts_with(family), "{}", checkup.server);
    let said: Vec<&str> = checkup.findings.iter().map(|finding| finding.what.as_str()).collect();
    assert!(said.iter().any(|what| what.contains("of 12 connections")), "{said:?}");
    assert!(said.iter().any(|what| what.contains("wait_timeout")), "{said:?}");
    assert_eq!(CARD.schemes(), ["mysql", "mariadb"]);
}

/// Each member blocks one thread of a pool, and each wait for a lock one more.
pub(crate) async fn the_check_up_warns_of_a_small_pool_of_threads(shared: Store) {
    if shared.has_no_pool_of_threads() {
        return;
    }
    let pool = "--thread-handling=pool-of-threads --thread-pool-size=1 --thread-pool-max-threads=10";
    let store = Store::own(Setup::new(Kind::MySql).argument(pool));
    let warns = async || {
        let found = within(store.connect("ours").await.check_up()).await.unwrap();
        let mut warnings = found.findings.iter().filter(|finding| finding.verdict == Verdict::Warning);
        warnings.any(|finding| finding.what.contains("10 threads") && finding.mend.contains("max_threads"))
    };
    assert!(warns().await);
    store.sql("SET GLOBAL thread_pool_max_threads = 65536");
    assert!(!warns().await);
}
