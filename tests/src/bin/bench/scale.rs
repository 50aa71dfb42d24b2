//! How cost grows: many locks of one member, many tasks, many waiters, many members and watchers. What goes over the wire is
//! counted by a proxy between all of them and the server.

use std::hint::black_box;
use std::time::{Duration, Instant};

use anyhow::Result;
use tooz::{Characteristic, HashRing};
use tooz_conformance::history::now;
use tooz_testbed::{Proxy, Server};

use crate::backend::{Backend, connect, with_namespace};
use crate::party::{Order, Party, Word};
use crate::progress::Progress;
use crate::report::Report;
use crate::stats::Sample;
use crate::target::Measure;

/// A backend seen through a proxy, where there is a server.
struct Wire<'a> {
    proxy: Option<Proxy>,
    server: Option<&'a Server>,
    url: String,
}

impl<'a> Wire<'a> {
    fn to(backend: &'a Backend, part: &str) -> Result<Self> {
        let Some(server) = &backend.server else {
            return Ok(Wire { proxy: None, server: None, url: backend.url(part) });
        };
        let proxy = Proxy::start(server.address())?;
        let url = server.url().replace(&server.address().to_string(), &proxy.address().to_string());
        Ok(Wire { proxy: Some(proxy), server: Some(server), url: with_namespace(&url, part) })
    }

    /// Requests so far, as the server counts them, or else as messages to it.
    fn requests(&self) -> Result<u64> {
        let counted = self.server.map(Server::requests).transpose()?.flatten();
        Ok(counted.or_else(|| self.counts().map(|counts| counts.0)).unwrap_or(0))
    }

    /// Messages to and from the server so far, and bytes.
    fn counts(&self) -> Option<(u64, u64, u64)> {
        let counts = self.proxy.as_ref()?.counts();
        Some((counts.to_server.chunks, counts.to_client.chunks, counts.to_server.bytes + counts.to_client.bytes))
    }
}

pub(crate) async fn measure(backend: &Backend, report: &mut Report, progress: &Progress) -> Result<()> {
    if !backend.across_processes {
        // It is the same with every backend, and asks none.
        progress.step("looking up keys in a hash ring");
        hash_ring(report);
    }
    many_locks(backend, report, progress).await?;
    many_tasks(backend, report, progress).await?;
    many_waiters(backend, report, progress).await?;
    many_members(backend, report, progress).await
}

/// Whose a key is in a group of a thousand, and what it costs when one more has joined.
fn hash_ring(report: &mut Report) {
    const MEMBERS: usize = 1000;
    const KEYS: usize = 100_000;
    const CHANGES: usize = 1000;
    let mut ring = HashRing::new();
    ring.add_nodes((0..MEMBERS).map(|index| (format!("member-{index}"), 1)));
    let keys: Vec<String> = (0..KEYS).map(|index| format!("customer-{index}")).collect();
    let (mut one, mut three, mut changes) = (Sample::new(), Sample::new(), Sample::new());
    for key in &keys {
        let begun = Instant::now();
        black_box(ring.node_for(black_box(key)));
        one.add(begun.elapsed());
        let begun = Instant::now();
        black_box(ring.nodes_for(black_box(key), 3));
        three.add(begun.elapsed());
    }
    for _ in 0..CHANGES {
        let begun = Instant::now();
        ring.add_node("one-more", 1);
        black_box(&ring);
        changes.add(begun.elapsed());
        ring.remove_node("one-more");
    }
    report.times(Measure::Scale, "hash ring of 1,000: whose is a key", one.summary(), None);
    report.times(Measure::Scale, "  and which three would have it", three.summary(), None);
    report.times(Measure::Scale, "  one member more", changes.summary(), None);
}

#[allow(clippy::cast_precision_loss)]
async fn many_locks(backend: &Backend, report: &mut Report, progress: &Progress) -> Result<()> {
    const LOCKS: usize = 10_000;
    progress.step("one member takes 10,000 locks");
    let wire = Wire::to(backend, "many-locks")?;
    let coordinator = connect(&wire.url, "owner").await?;
    let mut guards = Vec::with_capacity(LOCKS);
    let begun = Instant::now();
    for index in 0..LOCKS {
        guards.push(coordinator.lock(format!("many-{index}"))?.acquire().await?);
    }
    let mut sample = Sample::new();
    sample.add(begun.elapsed());
    report.times(Measure::Scale, "one member takes 10,000 locks", sample.summary(), None);
    if wire.proxy.is_some() {
        progress.step("heartbeats of 10,000 locks");
        // Ten timeouts are thirty heartbeats, each a request or a few.
        let (before, requests) = (wire.counts(), wire.requests()?);
        tokio::time::sleep(crate::backend::SESSION_TIMEOUT * 10).await;
        let requests = wire.requests()? - requests;
        if let (Some(before), Some(after)) = (before, wire.counts()) {
            let requests = requests as f64 / 30.0;
            report.figure(Measure::Heartbeat, "  requests per heartbeat", requests, "sent", Some(3.0));
            report.figure(
                Measure::Heartbeat,
                "  bytes per heartbeat",
                (after.2 - before.2) as f64 / 30.0,
                "bytes",
                None,
            );
        }
    }
    let lost = guards.iter().filter(|guard| !guard.is_held()).count();
    report.figure(Measure::Scale, "  locks that were lost", lost as f64, "", Some(0.0));
    // Closing is how a member with many locks ends: giving each back before that would be ten thousand requests.
    coordinator.close().await?;
    drop(guards);
    Ok(())
}

#[allow(clippy::cast_precision_loss)]
async fn many_tasks(backend: &Backend, report: &mut Report, progress: &Progress) -> Result<()> {
    const TASKS: usize = 1000;
    progress.step("1,000 tasks of one member on one lock");
    let wire = Wire::to(backend, "many-tasks")?;
    let coordinator = connect(&wire.url, "crowd").await?;
    let lock = coordinator.lock("crowded")?;
    // Opens the session.
    lock.acquire().await?.release().await?;
    let guard = lock.acquire().await?;
    let before = wire.counts();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..TASKS {
        let lock = lock.clone();
        tasks.spawn(async move { lock.acquire().await?.release().await });
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    if let (Some(before), Some(after)) = (before, wire.counts()) {
        let sent = (after.0 - before.0) as f64;
        report.figure(Measure::Scale, "1,000 tasks wait: requests for that", sent, "sent", Some(4.0));
    }
    let begun = Instant::now();
    guard.release().await?;
    while let Some(turn) = tasks.join_next().await {
        turn??;
    }
    let mut sample = Sample::new();
    sample.add(begun.elapsed() / u32::try_from(TASKS)?);
    report.times(Measure::Scale, "1,000 tasks in turn: a turn", sample.summary(), None);
    coordinator.close().await?;
    Ok(())
}

#[allow(clippy::cast_precision_loss)]
async fn many_waiters(backend: &Backend, report: &mut Report, progress: &Progress) -> Result<()> {
    const PROCESSES: usize = 4;
    const WAITERS: usize = 200;
    // Three heartbeats of everybody.
    const MOMENT: Duration = Duration::from_secs(2);
    progress.step("200 members wait for one lock");
    let wire = Wire::to(backend, "many-waiters")?;
    let holder = connect(&wire.url, "holder").await?;
    let guard = holder.lock("awaited")?.acquire().await?;
    // The next one does not give it back before the counting is over.
    let mut next = Party::at(backend, wire.url.clone(), "next").await?;
    next.tell(Order::Acquire { lock: "awaited".into() }).await?;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let mut parties = Vec::new();
    for index in 0..PROCESSES {
        let mut party = Party::at(backend, wire.url.clone(), &format!("w{index}")).await?;
        party.ask(Order::Queue { lock: "awaited".into(), waiters: WAITERS / PROCESSES }).await?;
        parties.push(party);
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    // Heartbeats of 202 members go by at the same time: what is measured first is a moment of the same length without a release.
    let quiet = wire.counts();
    tokio::time::sleep(MOMENT).await;
    let before = wire.counts();
    let released = now();
    guard.release().await?;
    let granted = next.hear_when().await?;
    let left = MOMENT.saturating_sub(Duration::from_nanos(now().saturating_sub(released)));
    tokio::time::sleep(left).await;
    let after = wire.counts();
    let mut sample = Sample::new();
    sample.add(Duration::from_nanos(granted.saturating_sub(released)));
    report.times(Measure::Scale, "200 waiters: release → the next owns it", sample.summary(), None);
    if let (Some(quiet), Some(before), Some(after)) = (quiet, before, after) {
        let moment = |from: (u64, u64, u64), to: (u64, u64, u64)| (to.0 - from.0) + (to.1 - from.1);
        let idle = moment(quiet, before) as f64;
        report.figure(Measure::Scale, "  messages in 2 s before the release", idle, "", None);
        report.figure(Measure::Scale, "  messages in 2 s with the release", moment(before, after) as f64, "", None);
    }
    next.ask(Order::Release).await?;
    next.end().await?;
    for party in parties {
        party.end().await?;
    }
    holder.close().await?;
    Ok(())
}

#[allow(clippy::cast_precision_loss)]
async fn many_members(backend: &Backend, report: &mut Report, progress: &Progress) -> Result<()> {
    const PROCESSES: usize = 5;
    const WATCHERS: usize = 10;
    const CHANGES: u64 = 20;
    const JOINS: usize = 20;
    let looker = backend.connect("many-members", "looker").await?;
    let has_groups = looker.characteristics().has(Characteristic::Groups);
    looker.close().await?;
    if !has_groups {
        return Ok(());
    }
    for members in [100, 1000] {
        progress.step(format!("{members} members, {WATCHERS} watchers"));
        let name = format!("watched-{members}");
        let wire = Wire::to(backend, "many-members")?;
        let mut crowd = Vec::new();
        for index in 0..PROCESSES {
            // They reach the server directly: their heartbeats are not what is counted.
            let mut party = Party::start(backend, "many-members", &format!("m{members}-{index}")).await?;
            party.ask(Order::JoinMany { group: name.clone(), count: members / PROCESSES }).await?;
            crowd.push(party);
        }
        let mut watchers = Party::at(backend, wire.url.clone(), &format!("v{members}")).await?;
        watchers.ask(Order::WatchMany { group: name.clone(), count: WATCHERS }).await?;
        let mut changing = Party::start(backend, "many-members", &format!("c{members}")).await?;
        changing.ask(Order::Join { group: name.clone() }).await?;
        tokio::time::sleep(Duration::from_millis(500)).await;
        let mut sample = Sample::new();
        let before = wire.counts();
        for value in 1..=CHANGES {
            let Word::Between { begun, .. } = changing.ask(Order::Update { to: value }).await? else { continue };
            tokio::time::sleep(Duration::from_millis(50)).await;
            if let Word::Moments(moments) = watchers.ask(Order::Seen { value }).await? {
                for moment in moments {
                    sample.add(Duration::from_nanos(moment.saturating_sub(begun)));
                }
            }
        }
        let between = wire.counts();
        changing.ask(Order::JoinMany { group: name, count: JOINS }).await?;
        // Time enough for all watchers to have followed.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let after = wire.counts();
        let what = format!("{members} members, {WATCHERS} watchers: a change is seen");
        report.times(Measure::Scale, what, sample.summary(), None);
        if let (Some(before), Some(between), Some(after)) = (before, between, after) {
            for (what, count, from, to) in
                [("change", CHANGES, before, between), ("join", JOINS as u64, between, after)]
            {
                let messages = (to.0 - from.0 + to.1 - from.1) as f64 / count as f64;
                let bytes = (to.2 - from.2) as f64 / count as f64;
                report.figure(Measure::Scale, format!("  messages per {what}, all watchers"), messages, "", None);
                report.figure(Measure::Scale, format!("  bytes per {what}"), bytes, "bytes", None);
            }
        }
        changing.end().await?;
        watchers.end().await?;
        for party in crowd {
            party.end().await?;
        }
    }
    Ok(())
}
