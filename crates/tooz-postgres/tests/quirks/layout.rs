//! Schemas that another version of tooz has made.

use tooz_core::{ErrorKind, connect};
use tooz_testbed::{Kind, Setup};

use crate::bed::{Store, within};

/// A server whose schema is of the first revision, which had no record of it.
fn of_the_first_revision() -> Store {
    let store = Store::own(Setup::new(Kind::Postgres));
    let ddl = include_str!("revision_1.sql").replace("{schema_text}", "\"tooz\"").replace("{schema}", "\"tooz\"");
    store.sql(&ddl);
    store
}

const RECORD: &str = "SELECT layout, revision FROM tooz.layout";

pub(crate) async fn the_first_member_brings_an_older_schema_up_to_date(_shared: Store) {
    let store = of_the_first_revision();
    let looker = store.connect("looker").await;
    assert!(looker.groups().await.unwrap().is_empty());
    assert_eq!(store.sql("SELECT to_regclass('tooz.layout') IS NULL"), "t", "who only looks changes nothing");
    store.sql("INSERT INTO tooz.groups VALUES ('own', 'old', 1, 5)");
    let mut both = tokio::task::JoinSet::new();
    for member in ["one", "two", "three"] {
        let ours = store.connect(member).await;
        both.spawn(async move {
            let guard = ours.lock(member).unwrap().acquire().await.unwrap();
            assert!(guard.is_held());
            ours
        });
    }
    let members = within(both.join_all()).await;
    assert_eq!(store.sql(RECORD), "1|3");
    assert_eq!(members[0].groups().await.unwrap()[0].as_str(), "old");
}

/// What a member of the first revision calls, as it calls it, and what it finds.
pub(crate) async fn members_of_an_older_revision_go_on_beside_newer_ones(_shared: Store) {
    let store = of_the_first_revision();
    let new = store.connect("new").await;
    let guard = within(new.lock("x").unwrap().acquire()).await.unwrap();
    new.group("g").unwrap().create().await.unwrap();
    let mut watch = within(new.group("g").unwrap().watch()).await.unwrap();
    within(watch.next()).await.unwrap();
    let answers = store.sql(
        "SET search_path = tooz;
        SELECT open_session(4711, 'own', 'old', 1, 2);
        SELECT join_group('own', 'g', 'old', '\\x000000000000000000000000000000aa', 4711, '1', NULL, false);
        SELECT update_member('own', 'g', 'old', '\\x000000000000000000000000000000aa', '2');
        SELECT sweep(4711, 'own') IS NOT NULL;
        SELECT count(*) FROM members WHERE session = 4711;
        SELECT delete_group('own', 'g');
        SELECT leave_group('own', 'g', 'old', '\\x000000000000000000000000000000aa');
        SELECT bury(4711);
        SELECT count(*) FROM sessions WHERE session = 4711",
    );
    let answers: Vec<_> = answers.lines().collect();
    // A connection that asks for its own session always finds it over, so the older one's `delete_group` is asked by others in truth.
    assert_eq!(&answers[..5], ["t", "ok", "t", "t", "1"], "{answers:?}");
    assert_eq!(*answers.last().unwrap(), "0", "{answers:?}");
    let told = within(watch.next()).await.unwrap();
    assert!(format!("{told:?}").contains("old"), "{told:?}");
    assert!(guard.is_held());
}

pub(crate) async fn who_does_not_own_an_older_schema_is_told_who_does(_shared: Store) {
    let store = of_the_first_revision();
    store.sql(
        "CREATE ROLE plain LOGIN; GRANT USAGE ON SCHEMA tooz TO plain; GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA tooz TO plain;
        GRANT USAGE, SELECT, UPDATE ON SEQUENCE tooz.fence TO plain",
    );
    let url = format!("postgres://plain@{}/postgres?session_timeout=2s", store.server.address());
    let plain = within(connect(&url, "plain")).await.unwrap();
    assert!(plain.groups().await.unwrap().is_empty());
    let error = within(plain.lock("x").unwrap().try_acquire()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthorized, "{error}");
    let text = error.to_string();
    assert!(
        text.contains("revision 1") && text.contains("owner (postgres)") && text.contains("tooz schema postgres"),
        "{text}"
    );
    let found = within(within(connect(&url, "looker")).await.unwrap().check_up()).await.unwrap();
    assert!(found.findings.iter().any(|one| one.what.contains("revision 1")), "{found:?}");
    // Its owner's first member does it, and no privilege is needed that was not needed before.
    drop(within(store.connect("owner").await.lock("y").unwrap().acquire()).await.unwrap());
    let guard = within(plain.lock("x").unwrap().try_acquire()).await.unwrap().unwrap();
    let membership = within(plain.group("g").unwrap().join_or_create(&1)).await.unwrap();
    membership.leave().await.unwrap();
    guard.release().await.unwrap();
}

pub(crate) async fn another_layout_is_refused_before_anything_is_owned(_shared: Store) {
    let store = Store::own(Setup::new(Kind::Postgres));
    let before = store.connect("before").await;
    let guard = within(before.lock("x").unwrap().acquire()).await.unwrap();
    store.sql("UPDATE tooz.layout SET layout = 2");
    let after = store.connect("after").await;
    for error in [
        within(after.lock("x").unwrap().try_acquire()).await.unwrap_err(),
        within(after.group("g").unwrap().join_or_create(&1)).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
        let text = error.to_string();
        assert!(text.contains("layout 2") && text.contains("layout 1") && text.contains("schema"), "{text}");
    }
    // A session that only looks, or deletes, is refused as well.
    store.sql("INSERT INTO tooz.groups VALUES ('own', 'zz', 1, 5)");
    let group = after.group("zz").unwrap();
    for refused in [
        within(group.delete()).await.map(drop),
        within(group.members()).await.map(drop),
        within(after.groups()).await.map(drop),
        within(after.lock("x").unwrap().holders()).await.map(drop),
        within(group.watch()).await.map(drop),
    ] {
        let error = refused.unwrap_err();
        assert!(error.kind() == ErrorKind::Config && error.to_string().contains("layout 2"), "{error}");
    }
    assert_eq!(store.sql("SELECT count(*) FROM tooz.groups WHERE name = 'zz'"), "1");
    let found = within(store.connect("looker").await.check_up()).await.unwrap();
    assert!(found.findings.iter().any(|one| one.what.contains("layout 2")), "{found:?}");
    assert_eq!(store.sql("SELECT count(*) FROM tooz.sessions"), "1");
    // A member that has a session keeps it, and gets no second one.
    assert!(guard.is_held());
    store.sql("SELECT pg_terminate_backend(pid) FROM tooz.sessions");
    within(guard.loss().wait()).await;
    let error = within(before.lock("x").unwrap().try_acquire()).await.unwrap_err();
    assert!(error.to_string().contains("layout 2"), "{error}");
    store.sql("UPDATE tooz.layout SET layout = 1");
    drop(within(after.lock("x").unwrap().acquire()).await.unwrap());
}

pub(crate) async fn what_a_newer_version_has_made_is_left_alone(_shared: Store) {
    let store = Store::own(Setup::new(Kind::Postgres));
    drop(within(store.connect("first").await.lock("x").unwrap().acquire()).await.unwrap());
    store.sql("UPDATE tooz.layout SET revision = 99");
    let ours = store.connect("ours").await;
    drop(within(ours.lock("x").unwrap().acquire()).await.unwrap());
    assert_eq!(store.sql(RECORD), "1|99");
    let mut psql = store.server.tool("psql").unwrap();
    std::fs::write(store.server.folder().join("ddl.sql"), tooz_postgres::ddl("tooz")).unwrap();
    psql.args(["-d", "postgres", "-q", "-v", "ON_ERROR_STOP=1", "-f"]).arg(store.server.folder().join("ddl.sql"));
    let output = psql.output().unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("newer version"), "{output:?}");
    assert_eq!(store.sql(RECORD), "1|99");
}

/// The schema is dropped under the members that live in it: the next session makes it anew, and so does the next group.
pub(crate) async fn a_schema_that_was_dropped_is_made_anew(_shared: Store) {
    let store = Store::own(Setup::new(Kind::Postgres));
    let ours = store.connect("ours").await;
    within(ours.lock("x").unwrap().acquire()).await.unwrap().release().await.unwrap();
    ours.group("g").unwrap().create().await.unwrap();
    store.sql("SET client_min_messages = error; DROP SCHEMA tooz CASCADE");
    ours.group("g").unwrap().create().await.unwrap();
    let other = store.connect("other").await;
    drop(within(other.lock("y").unwrap().acquire()).await.unwrap());
    assert_eq!(store.sql(RECORD), "1|3");
}
