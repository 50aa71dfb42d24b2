//! `tooz members`, `groups`, `leader`, `group create` and `group delete`.

use serde_json::{Value, json};
use tooz::{Coordinator, Error, ErrorKind, GroupId, Leader};

use super::{missing_group, with_coordinator};
use crate::args::{Global, LeaderArguments, MembersArguments};
use crate::exit;
use crate::failure::CommandFailure;
use crate::output;

pub(super) async fn members(global: &Global, arguments: &MembersArguments) -> Result<u8, CommandFailure> {
    let group = GroupId::new(arguments.group.name())?;
    let mut members = with_coordinator(global, async |coordinator| {
        let asked = coordinator.group(&group)?;
        missing_group::wait_for(&group, arguments.wait, async || asked.members().await).await
    })
    .await?;
    members.sort_by(|one, other| one.member.cmp(&other.member));
    if global.json {
        let list: Vec<_> = members.iter().map(super::watch::member).collect();
        output::json(&list.into())?;
    } else {
        let row = |entry: &tooz::RosterEntry| vec![entry.member.to_string(), entry.capabilities.as_json().to_owned()];
        output::rows(&["member", "capabilities"], members.iter().map(row).collect())?;
    }
    Ok(exit::SUCCESS)
}

pub(super) async fn list(global: &Global) -> Result<u8, CommandFailure> {
    let mut groups = with_coordinator(global, async |coordinator| Ok(coordinator.groups().await?)).await?;
    groups.sort();
    if global.json {
        output::json(&json!(groups.iter().map(GroupId::as_str).collect::<Vec<_>>()))?;
    } else {
        output::rows(&["group"], groups.iter().map(|group| vec![group.to_string()]).collect())?;
    }
    Ok(exit::SUCCESS)
}

pub(super) async fn leader(global: &Global, arguments: &LeaderArguments) -> Result<u8, CommandFailure> {
    let Some(name) = arguments.group.name() else { return leaders(global).await };
    let group = GroupId::new(name)?;
    let leader = with_coordinator(global, async |coordinator| {
        let asked = coordinator.group(&group)?;
        missing_group::wait_for(&group, arguments.wait, async || asked.leader().await).await
    })
    .await?;
    if global.json {
        output::json(&super::watch::leader(leader.as_ref()))?;
    } else if let Some(leader) = leader {
        output::rows(&["leader", "epoch"], vec![vec![leader.member.to_string(), leader.epoch.to_string()]])?;
    }
    Ok(exit::SUCCESS)
}

/// The leader of each group.
async fn leaders(global: &Global) -> Result<u8, CommandFailure> {
    let leaders = with_coordinator(global, async |coordinator| Ok(all_leaders(coordinator).await?)).await?;
    if global.json {
        let one = |(group, leader): &(GroupId, Option<Leader>)| -> Value {
            let member = leader.as_ref().map(|leader| leader.member.as_str());
            json!({ "group": group.as_str(), "member": member, "epoch": leader.as_ref().map(|leader| leader.epoch.0) })
        };
        output::json(&leaders.iter().map(one).collect::<Vec<_>>().into())?;
    } else {
        let rows = leaders.iter().map(|(group, leader)| match leader {
            Some(leader) => vec![group.to_string(), leader.member.to_string(), leader.epoch.to_string()],
            None => vec![group.to_string(), "-".to_owned(), "-".to_owned()],
        });
        output::rows(&["group", "leader", "epoch"], rows.collect())?;
    }
    Ok(exit::SUCCESS)
}

async fn all_leaders(coordinator: &Coordinator) -> tooz::Result<Vec<(GroupId, Option<Leader>)>> {
    let mut leaders = Vec::new();
    for group in coordinator.groups().await? {
        match coordinator.group(&group)?.leader().await {
            // Deleted since it was listed.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            leader => leaders.push((group, leader?)),
        }
    }
    Ok(leaders)
}

pub(super) async fn create(global: &Global, group: &str) -> Result<u8, CommandFailure> {
    with_coordinator(global, async |coordinator| Ok(coordinator.group(group)?.create().await?)).await?;
    Ok(exit::SUCCESS)
}

pub(super) async fn delete(global: &Global, group: &str) -> Result<u8, CommandFailure> {
    let absent = |error: Error| match error.kind() {
        ErrorKind::NotFound => {
            CommandFailure::missing(format!("there is no group {group:?}, so there is nothing to delete"))
        }
        _ => error.into(),
    };
    with_coordinator(global, async |coordinator| coordinator.group(group)?.delete().await.map_err(absent)).await?;
    Ok(exit::SUCCESS)
}
