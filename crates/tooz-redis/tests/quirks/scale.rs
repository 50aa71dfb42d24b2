//! Many of everything: no script takes long, and no crowd stands before the heartbeats.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::sleep;
use tooz_core::{ErrorKind, GroupEvent};
use tooz_testbed::Server;

use crate::bed::{cli, connect, keys, let_die, soon, start, trials, wait_in_background};

trials! {
    ten_thousand_readers_are_handed_over_a_few_at_a_time
    a_reader_costs_the_same_however_many_there_are
    a_dead_crowd_of_readers_blocks_no_request
    a_thousand_members_are_listed_in_short_scripts
    a_crowd_of_acquires_starves_no_heartbeat
    a_freed_lock_is_found_among_hundreds_of_waits
    a_crash_of_all_leaves_nothing_that_stays_for_ever
    tokens_end_plainly
    who_may_only_look_hears_of_deaths
    a_membership_that_is_deleted_is_told_to_its_member
    large_capabilities_take_nothing_from_those_that_read_them
    a_crowd_of_releases_is_in_no_ones_way
    the_queue_and_the_locks_in_use_are_read_in_parts
}

/// The processor time that the server has spent and the scripts that it has run: what the clock says is this machine's other work too.
pub(crate) struct Meter<'a> {
    server: &'a Server,
    begun: (f64, f64),
}

impl<'a> Meter<'a> {
    pub(crate) fn start(server: &'a Server) -> Self {
        Meter { server, begun: Self::read(server) }
    }

    fn read(server: &Server) -> (f64, f64) {
        let info = cli(server, &["INFO", "everything"]);
        let number = |before: &str, behind: char| -> f64 {
            let rest = info.split(before).nth(1).unwrap_or("0");
            rest.split([behind, '\r', '\n']).next().and_then(|text| text.parse().ok()).unwrap_or(0.0)
        };
        let seconds = number("used_cpu_user_main_thread:", '\r') + number("used_cpu_sys_main_thread:", '\r');
        (seconds * 1000.0, number("cmdstat_evalsha:calls=", ','))
    }

    /// A script takes some milliseconds and not more, on a slow machine too.
    #[track_caller]
    pub(crate) fn no_script_is_long(&self, what: &str) {
        let (spent, scripts) = Self::read(self.server);
        let (spent, scripts) = (spent - self.begun.0, scripts - self.begun.1);
        println!("{what}: {scripts} scripts, {:.2} ms each", spent / scripts);
        assert!(spent / scripts < 6.0, "{what}: {scripts} scripts took {spent} ms");
    }
}

/// As many requests for shared grants of the lock, of sessions that live for a minute: in the queue, or as holders.
fn crowd(server: &Server, lock: &str, count: u32, sessions: u32, queued: bool) {
    let script = "local p = 'tooz:{tooz}:' \
        for i = 1, tonumber(ARGV[2]) do \
          local id, owner = string.format('%032x', i), string.format('%032x', 1000000 + i % tonumber(ARGV[3])) \
          if redis.call('HSETNX', p .. 's:' .. owner, 'member', owner) == 1 then \
            redis.call('HSET', p .. 's:' .. owner, 'epoch', 1) redis.call('PEXPIRE', p .. 's:' .. owner, 60000) \
            redis.call('ZADD', p .. 'sessions', redis.call('TIME')[1] * 1000 + 60000, owner) end \
          redis.call('HSET', p .. 'o:' .. owner, id, ARGV[1]) \
          if ARGV[4] == 'queued' then \
            redis.call('ZADD', p .. 'q:' .. ARGV[1], 2000000000000000 + i, id) \
            redis.call('HSET', p .. 'w:' .. ARGV[1], id, 'S ' .. owner) \
          else redis.call('HSET', p .. ARGV[1], id, 'S ' .. i .. ' 1 ' .. owner) end end";
    let (count, sessions) = (count.to_string(), sessions.to_string());
    let how = if queued { "queued" } else { "held" };
    cli(server, &["EVAL", script, "0", lock, &count, &sessions, how]);
}

fn size(server: &Server, key: &str) -> usize {
    cli(server, &["HLEN", &format!("tooz:{{tooz}}:{key}")]).parse().unwrap()
}

async fn ten_thousand_readers_are_handed_over_a_few_at_a_time() {
    let server = start();
    let a = connect(&format!("{}?session_timeout=30s&operation_timeout=14s", server.url()), "a").await;
    let guard = soon(a.lock("x").unwrap().acquire()).await.unwrap();
    crowd(&server, "l:x", 10_000, 100, true);
    let meter = Meter::start(&server);
    let begun = Instant::now();
    soon(guard.release()).await.unwrap();
    while size(&server, "l:x") < 10_000 {
        assert!(begun.elapsed() < Duration::from_mins(1), "{} of them have it", size(&server, "l:x"));
        sleep(Duration::from_millis(20)).await;
    }
    let tokens: BTreeSet<_> =
        soon(a.lock("x").unwrap().holders()).await.unwrap().into_iter().map(|holder| holder.token).collect();
    assert_eq!(tokens.len(), 10_000);
    assert_eq!(cli(&server, &["EXISTS", "tooz:{tooz}:more", "tooz:{tooz}:q:l:x", "tooz:{tooz}:w:l:x"]), "0");
    meter.no_script_is_long("handing over");
}

async fn a_reader_costs_the_same_however_many_there_are() {
    let server = start();
    let a = connect(&format!("{}?session_timeout=30s&operation_timeout=14s", server.url()), "a").await;
    drop(soon(a.lock("first").unwrap().acquire()).await.unwrap());
    crowd(&server, "l:x", 20_000, 100, false);
    let meter = Meter::start(&server);
    let lock = a.lock("x").unwrap();
    for _ in 0..20 {
        soon(soon(lock.shared().acquire()).await.unwrap().release()).await.unwrap();
        assert!(soon(lock.try_acquire()).await.unwrap().is_none());
    }
    let holders = soon(lock.holders()).await.unwrap();
    assert_eq!(holders.len(), 20_000);
    soon(lock.break_lock(&holders[12_345])).await.unwrap();
    assert_eq!(soon(lock.break_lock(&holders[12_345])).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(size(&server, "l:x"), 19_999);
    meter.no_script_is_long("readers");
}

async fn a_dead_crowd_of_readers_blocks_no_request() {
    let server = start();
    let a = connect(&format!("{}?session_timeout=30s&operation_timeout=14s", server.url()), "a").await;
    drop(soon(a.lock("first").unwrap().acquire()).await.unwrap());
    crowd(&server, "l:x", 5_000, 5_000, false);
    crowd(&server, "l:y", 5_000, 5_000, false);
    let bury = "for i = 0, 4999 do redis.call('DEL', 'tooz:{tooz}:s:' .. string.format('%032x', 1000000 + i)) end";
    cli(&server, &["EVAL", bury, "0"]);
    let meter = Meter::start(&server);
    // No living session has it, so that a try must get it.
    let guard = soon(a.lock("x").unwrap().try_acquire()).await.unwrap().expect("only the dead had it");
    let waiting = soon(a.lock("y").unwrap().acquire()).await.unwrap();
    assert!(guard.is_held() && waiting.is_held());
    meter.no_script_is_long("the dead");
}

async fn a_thousand_members_are_listed_in_short_scripts() {
    let server = start();
    let a = connect(&format!("{}?session_timeout=30s&operation_timeout=14s", server.url()), "a").await;
    let group = a.group("g").unwrap();
    let membership = soon(group.join_or_create(&0)).await.unwrap();
    crowd(&server, "l:x", 5_000, 5_000, false);
    let enter = "for i = 1, 5000 do local owner = string.format('%032x', 1000000 + i % 5000) \
        redis.call('HSET', 'tooz:{tooz}:g:g', 'member ' .. i, string.format('%032x', i) .. ' ' .. owner .. ' {\"weight\":1}') end";
    cli(&server, &["EVAL", enter, "0"]);
    let meter = Meter::start(&server);
    for _ in 0..5 {
        assert_eq!(soon(group.members()).await.unwrap().len(), 5_001);
    }
    meter.no_script_is_long("members");
    let meter = Meter::start(&server);
    let error = soon(group.delete()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotEmpty);
    assert!(error.to_string().contains("5001"), "{error}");
    // The dead are not listed, and hold up no request.
    let bury = "for i = 0, 4999 do redis.call('DEL', 'tooz:{tooz}:s:' .. string.format('%032x', 1000000 + i)) end";
    cli(&server, &["EVAL", bury, "0"]);
    assert_eq!(soon(group.members()).await.unwrap().len(), 1);
    soon(membership.leave()).await.unwrap();
    soon(group.delete()).await.unwrap();
    meter.no_script_is_long("dead members");
}

async fn a_crowd_of_acquires_starves_no_heartbeat() {
    let server = start();
    let a = connect(&format!("{}?session_timeout=6s&operation_timeout=14s", server.url()), "a").await;
    let held = soon(a.lock("first").unwrap().acquire()).await.unwrap();
    let meter = Meter::start(&server);
    let mut all = JoinSet::new();
    for index in 0..20_000 {
        let lock = a.lock(format!("lock {index}")).unwrap();
        all.spawn(async move { lock.acquire().await });
    }
    let mut guards = Vec::new();
    while let Some(guard) = all.join_next().await {
        guards.push(guard.unwrap().unwrap());
    }
    sleep(Duration::from_secs(7)).await;
    assert!(held.is_held());
    assert_eq!(guards.iter().filter(|guard| guard.is_held()).count(), 20_000);
    // What the session owns is compared after a reconnect, a part at a time.
    cli(&server, &["CLIENT", "KILL", "TYPE", "pubsub"]);
    sleep(Duration::from_secs(3)).await;
    assert_eq!(guards.iter().filter(|guard| guard.is_held()).count(), 20_000);
    soon(a.close()).await.unwrap();
    assert_eq!(keys(&server), ["tooz:{tooz}:fence", "tooz:{tooz}:layout"]);
    meter.no_script_is_long("a crowd");
}

async fn a_freed_lock_is_found_among_hundreds_of_waits() {
    let server = start();
    let url = format!("{}?session_timeout=3s", server.url());
    let (a, b) = (connect(&url, "a").await, connect(&url, "b").await);
    let (mut held, mut waiting) = (Vec::new(), Vec::new());
    for index in 0..300 {
        held.push(soon(a.lock(format!("lock {index:03}")).unwrap().acquire()).await.unwrap());
    }
    for index in 0..300 {
        waiting.push(wait_in_background(&b, &format!("lock {index:03}")));
    }
    sleep(Duration::from_secs(1)).await;
    // No waiter is told of what is deleted by hand.
    for index in [0, 150, 299] {
        cli(&server, &["DEL", &format!("tooz:{{tooz}}:l:lock%20{index}")]);
        cli(&server, &["DEL", &format!("tooz:{{tooz}}:l:lock%20{index:03}")]);
    }
    sleep(Duration::from_millis(3500)).await;
    for index in [299, 150, 0] {
        assert!(waiting[index].is_finished(), "lock {index} is granted within a session timeout");
    }
    assert_eq!(waiting.iter().filter(|waiting| waiting.is_finished()).count(), 3);
    soon(a.close()).await.unwrap();
    soon(b.close()).await.unwrap();
}

async fn a_crash_of_all_leaves_nothing_that_stays_for_ever() {
    let server = start();
    let (a, b) = (connect(&server.url(), "a").await, connect(&server.url(), "b").await);
    let _guard = soon(a.lock("x").unwrap().acquire()).await.unwrap();
    let _shared = soon(a.lock("s").unwrap().shared().acquire()).await.unwrap();
    let waiting = wait_in_background(&b, "x");
    let membership = soon(b.group("g").unwrap().join_or_create(&1)).await.unwrap();
    let _leadership = soon(membership.campaign()).await.unwrap();
    sleep(Duration::from_millis(200)).await;
    let lasting = "local found = {} for _, key in ipairs(redis.call('KEYS', '*')) do \
        if redis.call('TTL', key) == -1 then found[#found + 1] = key end end table.sort(found) return found";
    let stays = ["tooz:{tooz}:fence", "tooz:{tooz}:groups", "tooz:{tooz}:layout"].join("\n");
    assert_eq!(cli(&server, &["EVAL", lasting, "0"]), stays);
    // The beats keep what is held: a key's time begins anew.
    for key in ["l:x", "l:s", "q:l:x", "w:l:x", "g:g", "e:g"] {
        cli(&server, &["PEXPIRE", &format!("tooz:{{tooz}}:{key}"), "2500"]);
    }
    sleep(Duration::from_secs(4)).await;
    for key in ["l:x", "l:s", "q:l:x", "w:l:x", "g:g", "e:g"] {
        let left: i64 = cli(&server, &["TTL", &format!("tooz:{{tooz}}:{key}")]).parse().unwrap();
        assert!(left > 86_400, "{key} is kept for {left} s");
    }
    assert!(!waiting.is_finished());
    waiting.abort();
}

async fn tokens_end_plainly() {
    let server = start();
    let (a, b) = (connect(&server.url(), "a").await, connect(&server.url(), "b").await);
    let guard = soon(a.lock("x").unwrap().acquire()).await.unwrap();
    let waiting = wait_in_background(&b, "x");
    sleep(Duration::from_millis(200)).await;
    for end in ["9007199254740991", "9007199254740993", "1e300", "nan", "no number"] {
        cli(&server, &["SET", "tooz:{tooz}:fence", end]);
        let error = soon(a.lock("y").unwrap().try_acquire()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Backend, "{error}");
        assert!(error.to_string().contains("fence"), "{error}");
    }
    sleep(Duration::from_secs(3)).await;
    assert!(guard.is_held(), "the heartbeats need no token");
    cli(&server, &["SET", "tooz:{tooz}:fence", "9007199254740990"]);
    let last = soon(a.lock("y").unwrap().try_acquire()).await.unwrap().unwrap();
    assert_eq!(last.fencing_token().0, 9_007_199_254_740_991);
    cli(&server, &["DEL", "tooz:{tooz}:fence"]);
    soon(guard.release()).await.unwrap();
    assert!(soon(waiting).await.unwrap().unwrap().is_held());
}

async fn who_may_only_look_hears_of_deaths() {
    let server = start();
    let rule = "ACL SETUSER looker on >pw ~tooz:* &tooz:* +@read +@pubsub +@connection +@scripting +info +time";
    cli(&server, &rule.split(' ').collect::<Vec<_>>());
    let rule = "ACL SETUSER blind on >pw ~tooz:* &tooz:* +@read +@pubsub +@connection +@scripting +info -time";
    cli(&server, &rule.split(' ').collect::<Vec<_>>());
    let a = connect(&server.url(), "a").await;
    let membership = soon(a.group("g").unwrap().join_or_create(&1)).await.unwrap();
    let looker = connect(&format!("redis://looker:pw@{}", server.address()), "looker").await;
    let mut watch = soon(looker.group("g").unwrap().watch()).await.unwrap();
    assert!(matches!(soon(watch.next()).await, Some(GroupEvent::Snapshot(members)) if members.len() == 1));
    // It is not told when to look, and must not ask again and again.
    let blind = connect(&format!("redis://blind:pw@{}", server.address()), "blind").await;
    let _blind = soon(blind.group("g").unwrap().watch()).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    let meter = Meter::start(&server);
    sleep(Duration::from_secs(4)).await;
    let scripts = Meter::read(&server).1 - meter.begun.1;
    assert!(scripts < 24.0, "{scripts} scripts in four seconds");
    let begun = Instant::now();
    let_die(&server, "a");
    // The user may bury no dead: it sees that they are.
    assert!(matches!(soon(watch.next()).await, Some(GroupEvent::Left(_))));
    assert!(begun.elapsed() < Duration::from_secs(4), "told after {:?}", begun.elapsed());
    assert!(soon(looker.group("g").unwrap().members()).await.unwrap().is_empty());
    assert!(soon(looker.lock("x").unwrap().holders()).await.unwrap().is_empty());
    drop(membership);
}

async fn a_membership_that_is_deleted_is_told_to_its_member() {
    let server = start();
    let a = connect(&server.url(), "a").await;
    let membership = soon(a.group("g").unwrap().join_or_create(&1)).await.unwrap();
    let guard = soon(a.lock("x").unwrap().acquire()).await.unwrap();
    cli(&server, &["DEL", "tooz:{tooz}:g:g"]);
    soon(membership.loss().wait()).await;
    assert!(guard.is_held(), "the session lives on");
}

async fn large_capabilities_take_nothing_from_those_that_read_them() {
    let server = start();
    let a = connect(&format!("{}?session_timeout=6s&operation_timeout=14s", server.url()), "a").await;
    let group = a.group("g").unwrap();
    let membership = soon(group.join_or_create(&"x".repeat(60_000))).await.unwrap();
    let guard = soon(a.lock("x").unwrap().acquire()).await.unwrap();
    let error = soon(membership.update(&"x".repeat(70_000))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    let b = connect(&server.url(), "b").await;
    let error = soon(b.group("g").unwrap().join(&"x".repeat(35_000_000))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    // As many more of them as no connection could be sent at once.
    let enter = "local text, owner = '\"' .. string.rep('x', 60000) .. '\"', string.format('%032x', 1) \
        redis.call('HSET', 'tooz:{tooz}:s:' .. owner, 'member', 'm', 'epoch', 1) \
        for i = 1, 600 do \
        redis.call('HSET', 'tooz:{tooz}:g:g', 'member ' .. i, string.format('%032x', i) .. ' ' .. owner .. ' ' .. text) end";
    cli(&server, &["EVAL", enter, "0"]);
    let connections = || {
        cli(&server, &["INFO", "stats"])
            .lines()
            .find_map(|line| line.trim().strip_prefix("client_output_buffer_limit_disconnections:").map(str::to_owned))
    };
    let before = connections();
    assert_eq!(soon(group.members()).await.unwrap().len(), 601);
    assert_eq!(connections(), before, "no connection was cut");
    assert!(guard.is_held() && membership.is_member());
}

async fn a_crowd_of_releases_is_in_no_ones_way() {
    let server = start();
    let a = connect(&format!("{}?session_timeout=3s&operation_timeout=40s", server.url()), "a").await;
    let group = a.group("g").unwrap();
    let _membership = soon(group.join_or_create(&0)).await.unwrap();
    let mut all = JoinSet::new();
    for index in 0..15_000 {
        let lock = a.lock(format!("lock {index}")).unwrap();
        all.spawn(async move { lock.acquire().await });
    }
    let mut guards = Vec::new();
    while let Some(guard) = all.join_next().await {
        guards.push(guard.unwrap().unwrap());
    }
    let mut all = JoinSet::new();
    for guard in guards {
        all.spawn(async move { guard.release().await });
    }
    for _ in 0..5 {
        assert_eq!(soon(group.members()).await.unwrap().len(), 1);
    }
    while let Some(released) = all.join_next().await {
        released.unwrap().unwrap();
    }
}

async fn the_queue_and_the_locks_in_use_are_read_in_parts() {
    let server = start();
    let a = connect(&format!("{}?session_timeout=30s&operation_timeout=14s", server.url()), "a").await;
    crowd(&server, "l:wanted", 3_000, 700, true);
    for index in 0..5 {
        cli(&server, &["HSET", &format!("tooz:{{tooz}}:o:{:032x}", 1_000_001), &format!("{index:032x}"), "l:deleted"]);
    }
    let mut guards = Vec::new();
    for index in 0..500 {
        guards.push(soon(a.lock(format!("lock {index}")).unwrap().acquire()).await.unwrap());
    }
    let meter = Meter::start(&server);
    assert_eq!(soon(a.lock("wanted").unwrap().waiters()).await.unwrap().len(), 3_000);
    let locks: BTreeSet<_> = soon(a.locks()).await.unwrap().into_iter().map(|name| name.to_string()).collect();
    meter.no_script_is_long("locks in use");
    assert_eq!(locks.len(), 501);
    assert!(locks.contains("wanted") && locks.contains("lock 499") && !locks.contains("deleted"));
}
