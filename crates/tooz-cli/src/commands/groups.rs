//! `tooz members`, `groups`, `leader`, `group create` and `group delete`.

use serde_json::json;

use super::with_coordinator;
use crate::args::Global;
use crate::exit::{self, CommandFailure};
use crate::output;

pub(super) async fn members(global: &Global, group: &str) -> Result<u8, CommandFailure> {
    let mut members =
        with_coordinator(global, async |coordinator| Ok(coordinator.group(group)?.members().await?)).await?;
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
        output::json(&json!(groups.iter().map(tooz::GroupId::as_str).collect::<Vec<_>>()))?;
    } else {
        output::rows(&["group"], groups.iter().map(|group| vec![group.to_string()]).collect())?;
    }
    Ok(exit::SUCCESS)
}

pub(super) async fn leader(global: &Global, group: &str) -> Result<u8, CommandFailure> {
    let leader = with_coordinator(global, async |coordinator| Ok(coordinator.group(group)?.leader().await?)).await?;
    if global.json {
        output::json(&super::watch::leader(leader.as_ref()))?;
    } else if let Some(leader) = leader {
        output::rows(&["leader", "epoch"], vec![vec![leader.member.to_string(), leader.epoch.to_string()]])?;
    }
    Ok(exit::SUCCESS)
}

pub(super) async fn create(global: &Global, group: &str) -> Result<u8, CommandFailure> {
    with_coordinator(global, async |coordinator| Ok(coordinator.group(group)?.create().await?)).await?;
    Ok(exit::SUCCESS)
}

pub(super) async fn delete(global: &Global, group: &str) -> Result<u8, CommandFailure> {
    with_coordinator(global, async |coordinator| Ok(coordinator.group(group)?.delete().await?)).await?;
    Ok(exit::SUCCESS)
}
