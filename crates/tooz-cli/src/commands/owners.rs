//! `tooz partition` and `tooz ring`: the owner of each key.

use std::collections::BTreeSet;

use serde_json::json;
use tooz::{HashRing, MemberId};

use super::{missing_group, with_coordinator};
use crate::args::{Global, PartitionArguments, RingArguments};
use crate::exit;
use crate::failure::CommandFailure;
use crate::output;

pub(super) async fn partition(global: &Global, arguments: &PartitionArguments) -> Result<u8, CommandFailure> {
    let Some((group, keys)) = arguments.group_and_keys() else {
        return Err(CommandFailure::usage("no key is given: tooz partition GROUP KEY…"));
    };
    let replicas = arguments.replicas.get();
    let owners = with_coordinator(global, async |coordinator| {
        let partitioner = coordinator.group(group)?.partitioner().await.map_err(missing_group::of(group))?;
        let owners = |key: &String| {
            let members = partitioner.members_for(key, replicas);
            members.iter().map(MemberId::to_string).collect()
        };
        Ok(keys.iter().map(|key| (key.as_str(), owners(key))).collect())
    })
    .await?;
    print(global, owners)
}

pub(super) fn ring(global: &Global, arguments: &RingArguments) -> Result<u8, CommandFailure> {
    let mut seen = BTreeSet::new();
    if let Some((twice, _)) = arguments.nodes.iter().find(|(name, _)| !seen.insert(name)) {
        return Err(CommandFailure::usage(format!("node {twice:?} is given twice")));
    }
    let mut ring = HashRing::with_points(arguments.points);
    ring.add_nodes(arguments.nodes.iter().map(|(name, weight)| (name.as_str(), *weight)));
    let owners = |key: &String| -> Vec<String> {
        ring.nodes_for(key, arguments.replicas.get()).into_iter().map(str::to_owned).collect()
    };
    print(global, arguments.keys.iter().map(|key| (key.as_str(), owners(key))).collect())
}

fn print(global: &Global, owners: Vec<(&str, Vec<String>)>) -> Result<u8, CommandFailure> {
    if global.json {
        let list: Vec<_> = owners.iter().map(|(key, owners)| json!({ "key": key, "owners": owners })).collect();
        output::json(&list.into())?;
    } else {
        let rows = owners.into_iter().map(|(key, owners)| vec![key.to_owned(), owners.join(",")]);
        output::rows(&["key", "owners"], rows.collect())?;
    }
    Ok(exit::SUCCESS)
}
