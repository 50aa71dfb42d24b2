//! Groups of two members: coming and going, the leader, the owners of keys.

use serde_json::json;
use tooz::{
    Capabilities, Group, GroupEvent, GroupWatch, JoinOptions, LeaderEvent, LeaderWatch, MemberId, Membership,
    RosterEntry,
};

use super::Pair;
use super::locks::grown;
use super::report::{TrialFailure, TrialSuccess};

/// Enough that two members with a fair share each own some.
const KEYS: usize = 100;

/// Joining, being listed, saying something new, leaving: and every watcher hears of it.
pub(super) async fn membership(pair: &Pair<'_>) -> Result<TrialSuccess, TrialFailure> {
    let group = pair.first.group(pair.scratch.group())?;
    pair.doing.is("creating a group");
    group.create().await?;
    let (one, two) = (json!({ "weight": 1 }), json!({ "weight": 2 }));
    pair.doing.is("joining a group");
    let first = group.join(&one).await?;
    pair.doing.is("watching a group");
    let mut watch = group.watch().await?;
    told(&mut watch, |event| matches!(event, GroupEvent::Snapshot(members) if members.len() == 1)).await?;

    let other = pair.second.member();
    let second = pair.second.group(pair.scratch.group())?.join(&one).await?;
    pair.doing.is("telling a watcher who came");
    told(&mut watch, |event| match event {
        GroupEvent::Joined(entry) => entry.member == *other,
        GroupEvent::Reset(members) => lists(members, other),
        _ => false,
    })
    .await?;

    pair.doing.is("updating the capabilities of a member");
    second.update(&two).await?;
    let wanted = Capabilities::new(&two)?;
    told(&mut watch, |event| match event {
        GroupEvent::Updated(entry) => entry.capabilities == wanted,
        GroupEvent::Reset(members) => members.iter().any(|entry| entry.capabilities == wanted),
        _ => false,
    })
    .await?;

    pair.doing.is("listing the members of a group");
    let members = group.members().await?;
    if members.len() != 2 || !members.iter().any(|entry| entry.member == *other && entry.capabilities == wanted) {
        return Err(TrialFailure::broken_promise(format!("a group of two members lists these: {members:?}")));
    }

    pair.doing.is("leaving a group");
    second.leave().await?;
    told(&mut watch, |event| match event {
        GroupEvent::Left(member) => member == other,
        GroupEvent::Reset(members) => !lists(members, other),
        _ => false,
    })
    .await?;
    first.leave().await?;
    pair.doing.is("deleting a group");
    group.delete().await?;
    told(&mut watch, |event| matches!(event, GroupEvent::Deleted)).await?;
    Ok(TrialSuccess::new("made, joined, listed, updated, left, deleted; a watcher was told of all"))
}

/// One leads, the other follows when it resigns, and a watcher sees the vacancy.
pub(super) async fn election(pair: &Pair<'_>) -> Result<TrialSuccess, TrialFailure> {
    let group = pair.first.group(pair.scratch.group())?;
    let (first, second) = both_join(pair).await?;
    pair.doing.is("watching who leads");
    let mut watch = group.watch_leader().await?;
    led(&mut watch, None).await?;
    pair.doing.is("electing a leader");
    let leader = first.campaign().await?;
    let epoch = leader.epoch();
    led(&mut watch, Some(first.member())).await?;

    pair.doing.is("electing the next leader after one has resigned");
    let (resigned, elected) = tokio::join!(leader.resign(), second.campaign());
    resigned?;
    let next = elected?;
    grown(epoch, next.epoch())?;
    pair.doing.is("telling a watcher who leads");
    led(&mut watch, None).await?;
    led(&mut watch, Some(second.member())).await?;
    next.resign().await?;
    led(&mut watch, None).await?;
    both_leave(pair, &group, first, second).await?;
    Ok(TrialSuccess::new("one leads, the next follows, its epoch grows; a watcher was told of all, vacancies too"))
}

/// Each key has one owner, and both members see the same one.
pub(super) async fn partition(pair: &Pair<'_>) -> Result<TrialSuccess, TrialFailure> {
    let group = pair.first.group(pair.scratch.group())?;
    let (first, second) = both_join(pair).await?;
    pair.doing.is("dividing keys between two members");
    let (mut one, mut two) = (first.partitioner().await?, second.partitioner().await?);
    for partitioner in [&mut one, &mut two] {
        while partitioner.members_for("", 2).len() < 2 && partitioner.changed().await {}
    }
    let keys: Vec<String> = (0..KEYS).map(|key| format!("key-{key}")).collect();
    if let Some(key) = keys.iter().find(|key| one.belongs_to_self(key) == two.belongs_to_self(key)) {
        return Err(TrialFailure::broken_promise(format!("{key:?} does not belong to exactly one of two members")));
    }
    let owned = keys.iter().filter(|key| one.belongs_to_self(key)).count();
    drop((one, two));
    both_leave(pair, &group, first, second).await?;
    Ok(TrialSuccess::new(format!(
        "each key has one owner: of {KEYS}, {owned} and {} between two members",
        KEYS - owned
    )))
}

async fn both_join(pair: &Pair<'_>) -> Result<(Membership, Membership), TrialFailure> {
    pair.doing.is("joining a group");
    let options = JoinOptions::new().create();
    let first = pair.first.group(pair.scratch.group())?.join_with(options.clone()).await?;
    let second = pair.second.group(pair.scratch.group())?.join_with(options).await?;
    Ok((first, second))
}

async fn both_leave(pair: &Pair<'_>, group: &Group, first: Membership, second: Membership) -> Result<(), TrialFailure> {
    pair.doing.is("leaving a group");
    first.leave().await?;
    second.leave().await?;
    pair.doing.is("deleting a group");
    Ok(group.delete().await?)
}

/// Waits until a watcher is told of it.
async fn told(watch: &mut GroupWatch, wanted: impl Fn(&GroupEvent) -> bool) -> Result<(), TrialFailure> {
    while let Some(event) = watch.next().await {
        if wanted(&event) {
            return Ok(());
        }
    }
    Err(TrialFailure::broken_promise("the watch of a group ended too early"))
}

/// Waits until a watcher is told that this one leads, or that none does.
async fn led(watch: &mut LeaderWatch, by: Option<&MemberId>) -> Result<(), TrialFailure> {
    while let Some(event) = watch.next().await {
        let leader = match &event {
            LeaderEvent::Elected(leader) => Some(&leader.member),
            LeaderEvent::Vacant => None,
            _ => continue,
        };
        if leader == by {
            return Ok(());
        }
    }
    Err(TrialFailure::broken_promise("the watch of a leader ended too early"))
}

fn lists(members: &[RosterEntry], member: &MemberId) -> bool {
    members.iter().any(|entry| entry.member == *member)
}
