//! Servers that give their clients other defaults than usual: our statements mean the same there.

use std::time::Duration;

use tokio::time::sleep;
use tooz_core::{Coordinator, connect};
use tooz_testbed::{Kind, Setup};

use crate::bed::{Store, within};

/// What is set for all clients that come after it, and how that is taken back.
const DEFAULTS: &[(&str, &str)] = &[
    ("completion_type = 'CHAIN'", "completion_type = 'NO_CHAIN'"),
    ("completion_type = 'RELEASE'", "completion_type = 'NO_CHAIN'"),
    ("autocommit = 0", "autocommit = 1"),
    ("init_connect = 'START TRANSACTION'", "init_connect = ''"),
    ("init_connect = 'SET autocommit = 0, completion_type = 1'", "init_connect = ''"),
    ("sql_mode = 'ANSI_QUOTES,NO_BACKSLASH_ESCAPES,PIPES_AS_CONCAT'", "sql_mode = DEFAULT"),
    ("sql_select_limit = 0", "sql_select_limit = DEFAULT"),
    ("sql_safe_updates = 1", "sql_safe_updates = 0"),
    ("max_join_size = 1", "max_join_size = DEFAULT"),
    ("TRANSACTION READ ONLY", "TRANSACTION READ WRITE"),
    ("TRANSACTION ISOLATION LEVEL SERIALIZABLE", "TRANSACTION ISOLATION LEVEL REPEATABLE READ"),
    ("innodb_lock_wait_timeout = 1", "innodb_lock_wait_timeout = DEFAULT"),
    ("lock_wait_timeout = 1", "lock_wait_timeout = DEFAULT"),
    ("wait_timeout = 1", "wait_timeout = DEFAULT"),
    ("time_zone = '+05:00'", "time_zone = DEFAULT"),
    ("character_set_client = 'latin1'", "character_set_client = DEFAULT"),
    ("collation_connection = 'utf8mb4_turkish_ci'", "collation_connection = DEFAULT"),
];

/// What only one of the families knows.
const OF_MARIADB: &[(&str, &str)] =
    &[("max_statement_time = 0.0001", "max_statement_time = 0"), ("sql_mode = 'ORACLE'", "sql_mode = DEFAULT")];
const OF_MYSQL: &[(&str, &str)] = &[("max_execution_time = 1", "max_execution_time = 0")];

pub(crate) async fn whatever_a_server_gives_by_default_a_lock_has_one_holder(_: Store) {
    let store = Store::own(Setup::new(Kind::MySql));
    // What a server does for each new connection it does for those alone that do not administer it.
    store.sql("CREATE USER app@'%' IDENTIFIED BY 'word'; GRANT ALL ON tooz.* TO app@'%'");
    let is_mariadb = store.sql("SELECT VERSION()").contains("MariaDB");
    let more = if is_mariadb { OF_MARIADB } else { OF_MYSQL };
    for (number, (default, back)) in DEFAULTS.iter().chain(more).enumerate() {
        store.sql(&format!("SET GLOBAL {default}"));
        let url = store.url_as("app:word") + &format!("-{number}");
        let of = async |member: &str| {
            within(connect(&url, member)).await.unwrap_or_else(|error| panic!("{default}: {error}"))
        };
        let (a, b) = (of("a").await, of("b").await);
        excludes(&a, &b, default).await;
        for ours in [&a, &b] {
            within(ours.close()).await.unwrap_or_else(|error| panic!("{default}: {error}"));
        }
        store.sql(&format!("SET GLOBAL {back}"));
    }
    for table in ["groups", "sessions", "members", "grants", "sharers", "waits"] {
        assert_eq!(store.sql(&format!("SELECT COUNT(*) FROM tooz.tooz_{table}")), "0", "{table}");
    }
}

/// Both commit before they take a lock, which is when the next transaction would begin.
async fn excludes(a: &Coordinator, b: &Coordinator, default: &str) {
    let (group, theirs) = (a.group("g").unwrap(), b.group("g").unwrap());
    let joined = within(group.join_or_create(&1)).await.unwrap_or_else(|error| panic!("{default}: {error}"));
    let other = within(theirs.join_or_create(&2)).await.unwrap_or_else(|error| panic!("{default}: {error}"));
    assert_eq!(within(theirs.members()).await.unwrap().len(), 2, "{default}");
    let reader = within(a.lock("x").unwrap().shared().acquire()).await.unwrap();
    assert!(within(b.lock("x").unwrap().try_acquire()).await.unwrap().is_none(), "{default}: two holders");
    // Until it is written down.
    sleep(Duration::from_millis(200)).await;
    let holders = within(b.lock("x").unwrap().holders()).await.unwrap();
    assert_eq!(holders.len(), 1, "{default}");
    assert!(reader.is_held() && joined.is_member() && other.is_member(), "{default}");
    within(reader.release()).await.unwrap();
    let writer = within(b.lock("x").unwrap().acquire()).await.unwrap();
    assert!(within(a.lock("x").unwrap().shared().try_acquire()).await.unwrap().is_none(), "{default}: two holders");
    within(writer.release()).await.unwrap();
    within(joined.leave()).await.unwrap();
    within(other.leave()).await.unwrap();
    within(group.delete()).await.unwrap_or_else(|error| panic!("{default}: {error}"));
}
