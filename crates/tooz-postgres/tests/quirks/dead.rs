//! What the dead leave behind, in thousands: it is taken away by small steps, and no lock is in danger meanwhile.

use std::time::{Duration, Instant};

use tooz_core::driver::Verdict;
use tooz_core::{ConnectOptions, Coordinator, GroupEvent, connect};
use tooz_testbed::{Kind, Setup};

use crate::bed::{Store, within};

/// A lock table that a thousand dead would overfill.
const SMALL: &str = "-c max_locks_per_transaction=10 -c max_connections=80";

/// Rows as so many dead members of one group leave them, each with a leadership that was its own.
fn leave_dead(store: &Store, namespace: &str, group: &str, many: usize) {
    store.sql(&format!(
        "SET search_path = tooz;
        INSERT INTO groups VALUES ('{namespace}', '{group}', hashtext('{namespace}/{group}'), 1000) ON CONFLICT DO NOTHING;
        WITH dead AS (
            INSERT INTO sessions (session, namespace, member, pid)
            SELECT (random() * 1e18)::bigint, '{namespace}', '{group}-' || number, 1 FROM generate_series(1, {many}) AS number RETURNING *
        ), entered AS (
            INSERT INTO members SELECT namespace, '{group}', member, decode(lpad(to_hex(session), 32, '0'), 'hex'), session, 'null' FROM dead
        )
        INSERT INTO grants SELECT hashtext(member), decode(lpad(to_hex(session), 32, '0'), 'hex'), session, false, 1, now(), namespace, 'lock', \
         'shared by all' FROM dead"
    ));
}

async fn until_none_is_left(store: &Store) -> Duration {
    let began = Instant::now();
    // All rows of pid 1 are those of the dead.
    while store.sql("SELECT count(*) FROM tooz.sessions WHERE pid = 1") != "0" {
        assert!(began.elapsed() < Duration::from_secs(30), "the dead are still there");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    began.elapsed()
}

/// What the server's log tells of errors; not of those that knocked before it was ready.
fn errors(store: &Store) -> Vec<String> {
    let log = std::fs::read_to_string(store.server.folder().join("log")).unwrap();
    let is_bad =
        |line: &&str| ["ERROR:", "FATAL:", "WARNING:", "out of shared memory"].iter().any(|bad| line.contains(bad));
    log.lines().filter(is_bad).filter(|line| !line.contains("is starting up")).map(str::to_owned).collect()
}

async fn in_namespace(store: &Store, namespace: &str, member: &str) -> Coordinator {
    let url = format!("{}?session_timeout=2s&namespace={namespace}", store.server.url());
    within(connect(&url, member)).await.unwrap()
}

pub(crate) async fn the_check_up_tells_that_the_dead_can_not_be_taken_away(_shared: Store) {
    let store = Store::own(Setup::new(Kind::Postgres));
    let first = store.connect("first").await;
    first.group("g").unwrap().create().await.unwrap();
    store.sql(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'kept by a trigger'; END $$;
        CREATE TRIGGER refuse BEFORE DELETE ON tooz.sessions FOR EACH ROW EXECUTE FUNCTION refuse()",
    );
    leave_dead(&store, &store.namespace, "g", 1);
    let told = || async {
        let found = within(first.check_up()).await.unwrap();
        found.findings.iter().find(|one| one.what.contains("kept by a trigger")).map(|one| one.verdict)
    };
    // Another member may have been at it a moment ago, and then this one has nothing to do.
    let until = Instant::now() + Duration::from_secs(20);
    let verdict = loop {
        assert!(Instant::now() < until, "it is not told");
        match told().await {
            Some(verdict) => break verdict,
            None => tokio::time::sleep(Duration::from_millis(300)).await,
        }
    };
    assert_eq!(verdict, Verdict::Wrong);
    store.sql("DROP TRIGGER refuse ON tooz.sessions");
    within(first.check_up()).await.unwrap();
    until_none_is_left(&store).await;
}

pub(crate) async fn three_thousand_dead_of_other_namespaces_are_no_line_in_the_log(_shared: Store) {
    let store = Store::own(Setup::new(Kind::Postgres).argument(SMALL));
    let first = store.connect("first").await;
    first.group("g").unwrap().create().await.unwrap();
    for namespace in ["nobody's", "forgotten", "old"] {
        leave_dead(&store, &namespace.replace('\'', "''"), "g", 1000);
    }
    let mut watches = Vec::new();
    for index in 0..30 {
        let ours = store.connect(&format!("watcher-{index}")).await;
        watches.push((within(ours.group("g").unwrap().watch()).await.unwrap(), ours));
    }
    let took = until_none_is_left(&store).await;
    println!("3,000 dead of three unused namespaces are gone after {took:?}");
    for index in 0..5 {
        let ours = in_namespace(&store, &format!("empty-{index}"), "ours").await;
        within(ours.lock("x").unwrap().acquire()).await.unwrap().release().await.unwrap();
    }
    let rows = "SELECT (SELECT count(*) FROM tooz.members), (SELECT count(*) FROM tooz.grants)";
    assert_eq!(store.sql(rows), "0|0");
    assert_eq!(errors(&store), Vec::<String>::new());
}

pub(crate) async fn thousands_of_dead_in_one_group_are_gone_within_seconds_and_all_are_told(_shared: Store) {
    const DEAD: u64 = 4000;
    let store = Store::own(Setup::new(Kind::Postgres).argument(SMALL));
    let ours = store.connect("ours").await;
    let group = ours.group("g").unwrap();
    group.create().await.unwrap();
    let guard = within(ours.lock("x").unwrap().acquire()).await.unwrap();
    let version = "SELECT version FROM tooz.groups WHERE name = 'g'";
    let before: u64 = store.sql(version).parse().unwrap();
    leave_dead(&store, &store.namespace, "g", usize::try_from(DEAD).unwrap());
    let mut watch = within(group.watch()).await.unwrap();
    // They don't count from the beginning: none is told to have left.
    assert!(matches!(within(watch.next()).await, Some(GroupEvent::Snapshot(members)) if members.is_empty()));
    let took = until_none_is_left(&store).await;
    println!("{DEAD} dead of one group are gone after {took:?}, with a session timeout of 2 s");
    let after: u64 = store.sql(version).parse().unwrap();
    assert_eq!(after, before + DEAD, "each leaving is counted");
    let membership = within(group.join(&())).await.unwrap();
    assert!(matches!(within(watch.next()).await, Some(GroupEvent::Joined(_) | GroupEvent::Reset(_))));
    assert!(guard.is_held());
    membership.leave().await.unwrap();
    assert_eq!(errors(&store), Vec::<String>::new());
}

pub(crate) async fn a_group_and_a_lock_full_of_dead_fill_no_lock_table(_shared: Store) {
    let store = Store::own(Setup::new(Kind::Postgres).argument(SMALL));
    let ours = store.connect("ours").await;
    ours.group("g").unwrap().create().await.unwrap();
    leave_dead(&store, &store.namespace, "g", 3000);
    store.sql("SET search_path = tooz; UPDATE grants SET key = 7");
    let mut looking = tokio::task::JoinSet::new();
    for index in 0..10 {
        let looker = store.connect(&format!("looker-{index}")).await;
        looking.spawn(async move {
            for _ in 0..5 {
                assert!(looker.group("g").unwrap().members().await.unwrap().is_empty());
                assert!(looker.lock("shared by all").unwrap().holders().await.unwrap().is_empty());
            }
        });
    }
    within(looking.join_all()).await;
    within(ours.group("g").unwrap().delete()).await.unwrap();
    assert_eq!(store.sql("SELECT count(*) FROM tooz.members"), "0");
    assert_eq!(errors(&store), Vec::<String>::new());
}

/// One session that held and joined so much that no single statement should take it all away.
pub(crate) async fn what_one_session_leaves_in_thousands_is_taken_away_by_steps(_shared: Store) {
    let store = Store::own(Setup::new(Kind::Postgres));
    let ours = store.connect("ours").await;
    ours.group("g").unwrap().create().await.unwrap();
    store.sql(
        "SET search_path = tooz;
        INSERT INTO sessions (session, namespace, member, pid) VALUES (77, 'own', 'rich', 1);
        INSERT INTO groups SELECT 'own', 'g' || number, number, 1 FROM generate_series(1, 3000) AS number;
        INSERT INTO members SELECT 'own', 'g' || number, 'rich', '\\x00', 77, 'null' FROM generate_series(1, 3000) AS number;
        INSERT INTO grants SELECT number, '\\x00', 77, true, 1, now(), 'own', 'election', 'g' || number FROM generate_series(1, 10000) AS number",
    );
    let _watch = within(ours.group("g").unwrap().watch()).await.unwrap();
    let took = until_none_is_left(&store).await;
    println!("one dead session with 3,000 memberships and 10,000 grants is gone after {took:?}");
    let rows = "SELECT (SELECT count(*) FROM tooz.members), (SELECT count(*) FROM tooz.grants), \
                (SELECT count(*) FROM tooz.groups WHERE version = 2)";
    assert_eq!(store.sql(rows), "0|0|3000");
    assert_eq!(errors(&store), Vec::<String>::new());
}

pub(crate) async fn few_of_many_watchers_look_who_has_died(_shared: Store) {
    const WATCHERS: u32 = 60;
    let store = Store::own(Setup::new(Kind::Postgres).argument("-c track_functions=all"));
    store.connect("first").await.group("g").unwrap().create().await.unwrap();
    let mut watches = Vec::new();
    let url = format!("{}?session_timeout=8s&namespace=own", store.server.url());
    for index in 0..WATCHERS {
        let ours = within(connect(&url, format!("watcher-{index}").as_str())).await.unwrap();
        watches.push((within(ours.group("g").unwrap().watch()).await.unwrap(), ours));
    }
    let calls = || {
        let counted =
            store.sql("SELECT coalesce(sum(calls), 0) FROM pg_stat_user_functions WHERE funcname = 'clear_up'");
        counted.parse::<u32>().unwrap()
    };
    // They find each other within some looks.
    tokio::time::sleep(Duration::from_secs(10)).await;
    let before = calls();
    tokio::time::sleep(Duration::from_secs(10)).await;
    let looks = calls() - before;
    println!("{WATCHERS} watchers look {looks} times in 10 s, where each would look 11 times by itself");
    assert!(looks >= 5, "none looks");
    assert!(looks <= WATCHERS * 4, "{looks} looks");
    // And still a death is noticed as fast as by one alone.
    let mut member = store.start(&["join", "g"]);
    member.line();
    let (watch, _) = &mut watches[0];
    while !matches!(within(watch.next()).await, Some(GroupEvent::Joined(_))) {}
    member.kill();
    let killed = Instant::now();
    while !matches!(within(watch.next()).await, Some(GroupEvent::Left(_) | GroupEvent::Reset(_))) {}
    println!("kill -9 to Left with {WATCHERS} watchers: {:?}", killed.elapsed());
    assert!(killed.elapsed() < Duration::from_secs(5), "{:?}", killed.elapsed());
}

pub(crate) async fn who_may_only_read_hears_of_deaths_and_fills_no_log(_shared: Store) {
    let store = Store::own(Setup::new(Kind::Postgres));
    store.connect("first").await.group("g").unwrap().create().await.unwrap();
    store.sql("CREATE ROLE reader LOGIN; GRANT USAGE ON SCHEMA tooz TO reader; GRANT SELECT ON ALL TABLES IN SCHEMA tooz TO reader");
    let url = format!("postgres://reader@{}/postgres?namespace=own&session_timeout=30s", store.server.address());
    let reader = ConnectOptions::new(&url).unwrap().member("reader").unwrap();
    let reader = within(reader.connect()).await.unwrap();
    let mut watch = within(reader.group("g").unwrap().watch()).await.unwrap();
    assert!(matches!(within(watch.next()).await, Some(GroupEvent::Snapshot(_))));
    let mut member = store.start(&["join", "g"]);
    member.line();
    assert!(matches!(within(watch.next()).await, Some(GroupEvent::Joined(_))));
    member.kill();
    let killed = Instant::now();
    assert!(matches!(within(watch.next()).await, Some(GroupEvent::Left(_))));
    println!("kill -9 to Left for one that may only read: {:?}", killed.elapsed());
    assert!(killed.elapsed() < Duration::from_secs(5), "{:?}", killed.elapsed());
    // Not even that is allowed: it reads in its time, and the server's log stays empty.
    store.sql("REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA tooz FROM PUBLIC");
    let late = format!("postgres://reader@{}/postgres?namespace=own&session_timeout=2s", store.server.address());
    let late = within(connect(&late, "late")).await.unwrap();
    let _watch = within(late.group("g").unwrap().watch()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let of_reader: Vec<_> = errors(&store).into_iter().filter(|line| line.contains("permission denied")).collect();
    assert!(of_reader.len() <= 1, "{of_reader:?}");
}

/// A user deletes one group by hand and has another one locked: neither keeps up any other group.
pub(crate) async fn a_spoiled_or_locked_group_keeps_up_no_other(_shared: Store) {
    let store = Store::own(Setup::new(Kind::Postgres));
    let ours = store.connect("ours").await;
    ours.group("g").unwrap().create().await.unwrap();
    let gone = ours.group("gone").unwrap();
    let membership = within(gone.join_or_create(&1)).await.unwrap();
    for (namespace, group) in [("orphans", "x"), ("stuck", "x"), ("others", "x")] {
        leave_dead(&store, namespace, group, 400);
    }
    store.sql("DELETE FROM tooz.groups WHERE namespace = 'orphans' OR name = 'gone'");
    let mut psql = store.server.tool("psql").unwrap();
    psql.args(["-d", "postgres", "-c"]);
    psql.arg("BEGIN; SELECT * FROM tooz.groups WHERE namespace = 'stuck' FOR UPDATE; SELECT pg_sleep(8)");
    let mut stranger = psql.stdout(std::process::Stdio::null()).spawn().unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let _watch = within(ours.group("g").unwrap().watch()).await.unwrap();
    let began = Instant::now();
    while store.sql("SELECT count(*) FROM tooz.sessions WHERE pid = 1 AND namespace <> 'stuck'") != "0" {
        assert!(began.elapsed() < Duration::from_secs(6), "the others are still there");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(store.sql("SELECT count(*) FROM tooz.sessions WHERE namespace = 'stuck'"), "400");
    stranger.wait().unwrap();
    until_none_is_left(&store).await;
    // A member whose group has gone is told.
    let told = Instant::now();
    while membership.over().is_none() {
        assert!(told.elapsed() < Duration::from_secs(5), "the member was not told");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    within(membership.leave()).await.ok();
    assert_eq!(errors(&store), Vec::<String>::new());
}
