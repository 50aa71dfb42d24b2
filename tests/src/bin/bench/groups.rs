//! Joining, listing, and the way of a change to a watcher.

use std::time::Duration;

use anyhow::Result;
use tooz::{Characteristic, GroupEvent};
use tooz_testbed::Proxy;

use crate::backend::{Backend, connect, with_namespace};
use crate::party::{Order, Party, Word};
use crate::progress::Progress;
use crate::report::Report;
use crate::stats::{Sample, with_warm_up};
use crate::target::{self, Measure, Target};

/// By how much each way is made longer to count the round trips. Well below what a request may take.
const DELAY: Duration = Duration::from_millis(40);

pub(crate) async fn measure(backend: &Backend, report: &mut Report, progress: &Progress) -> Result<()> {
    let coordinator = backend.connect("groups", "looker").await?;
    if !coordinator.characteristics().has(Characteristic::Groups) {
        return Ok(());
    }
    progress.step("join");
    let rounds = report.rounds(1000);
    let mut sample = Sample::after_warm_up(rounds);
    let group = coordinator.group("joined")?;
    group.create().await?;
    for _ in 0..with_warm_up(rounds) {
        let membership = sample.time(group.join(&1)).await?;
        membership.leave().await?;
    }
    let target = match report.memory_floor {
        Some(floor) => Some(Target::Within(floor.join + Duration::from_micros(50))),
        None => target::of(backend.name, Measure::Join),
    };
    report.times(Measure::Join, "join", sample.summary(), target);

    let sizes: &[usize] = if report.quick { &[50] } else { &[50, 1000] };
    for &size in sizes {
        list(backend, report, progress, size).await?;
    }

    progress.step("from a change to the watcher");
    let mut sample = Sample::new();
    let mut member = Party::start(backend, "groups", "member").await?;
    member.ask(Order::Join { group: "watched".into() }).await?;
    let mut watch = coordinator.group("watched")?.watch().await?;
    watch.next().await;
    for value in 1..=report.rounds(500) as u64 {
        member.tell(Order::Update { to: value }).await?;
        let seen = loop {
            match watch.next().await {
                Some(GroupEvent::Updated(entry)) if entry.capabilities.get::<u64>().ok() == Some(value) => {
                    break tooz_conformance::history::now();
                }
                Some(_) => {}
                None => anyhow::bail!("the watch has ended"),
            }
        };
        if let Word::Between { begun, .. } = member.hear().await? {
            sample.add(Duration::from_nanos(seen.saturating_sub(begun)));
        }
    }
    member.end().await?;
    coordinator.close().await?;
    report.times(Measure::Push, "a change → the watcher has it", sample.summary(), None);
    requests(backend, report, progress).await
}

async fn list(backend: &Backend, report: &mut Report, progress: &Progress, size: usize) -> Result<()> {
    const PROCESSES: usize = 5;
    progress.step(format!("{size} members join"));
    let name = format!("list-{size}");
    let mut parties = Vec::new();
    for index in 0..PROCESSES {
        let mut party = Party::start(backend, "groups", &format!("{name}-{index}")).await?;
        party.tell(Order::JoinMany { group: name.clone(), count: size / PROCESSES }).await?;
        party.hear().await?;
        parties.push(party);
    }
    progress.step(format!("listing {size} members"));
    let coordinator = backend.connect("groups", "lister").await?;
    let group = coordinator.group(name)?;
    let rounds = report.rounds(if size > 50 { 500 } else { 2000 });
    let mut sample = Sample::after_warm_up(rounds);
    for _ in 0..with_warm_up(rounds) {
        let members = sample.time(group.members()).await?;
        anyhow::ensure!(members.len() == size, "{} members are listed, {size} have joined", members.len());
    }
    report.times(Measure::List, format!("list {size} members with capabilities"), sample.summary(), None);
    for party in parties {
        party.end().await?;
    }
    coordinator.close().await?;
    Ok(())
}

/// How many requests go over the wire, one operation at a time: counted by the server, or by a proxy, where one chunk is one request.
async fn requests(backend: &Backend, report: &mut Report, progress: &Progress) -> Result<()> {
    let Some(server) = &backend.server else { return Ok(()) };
    progress.step("counting the requests of join and list");
    let proxy = Proxy::start(server.address())?;
    let url = server.url().replace(&server.address().to_string(), &proxy.address().to_string());
    let coordinator = connect(&with_namespace(&url, "count"), "counter").await?;
    let group = coordinator.group("counted")?;
    group.create().await?;
    // Opens the session and prepares what is prepared once.
    group.join(&1).await?.leave().await?;
    let (mut joins, mut lists) = (Vec::new(), Vec::new());
    let count = || anyhow::Ok(server.requests()?.unwrap_or_else(|| proxy.counts().to_server.chunks));
    // Some servers count the question for their count.
    let alone = count()?;
    let alone = count()? - alone;
    for _ in 0..20 {
        let before = count()?;
        let membership = group.join(&1).await?;
        let between = count()?;
        group.members().await?;
        let after = count()?;
        joins.push((between - before).saturating_sub(alone));
        lists.push((after - between).saturating_sub(alone));
        membership.leave().await?;
    }
    // A heartbeat may fall into one of them: the median has none.
    let median = |mut all: Vec<u64>| {
        all.sort_unstable();
        #[allow(clippy::cast_precision_loss)]
        let middle = all[all.len() / 2] as f64;
        middle
    };
    report.figure(Measure::Join, "requests of a join", median(joins), "sent", target::join_requests(backend.name));
    // ZooKeeper has one for each member; what counts is how many of them wait for one another.
    let limit = target::list_requests(backend.name);
    report.figure(Measure::List, "requests of a list", median(lists), "sent", limit.filter(|_| !backend.pipelines()));
    let membership = group.join(&1).await?;
    proxy.delay(DELAY);
    group.members().await?;
    let begun = std::time::Instant::now();
    group.members().await?;
    // Each way has the delay; all the rest is small beside it.
    let trips = (begun.elapsed().as_secs_f64() / (2.0 * DELAY.as_secs_f64())).floor();
    report.figure(Measure::List, "round trips of a list", trips, "waited for", limit);
    proxy.heal();
    membership.leave().await?;
    coordinator.close().await?;
    Ok(())
}
