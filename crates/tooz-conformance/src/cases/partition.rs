//! Partitioning: every member computes the same owners, and follows the group.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;
use tooz_core::{Characteristic, Coordinator, Membership, Partitioner};

use crate::cases::Requirement::{EndSession, Has};
use crate::cases::cases;
use crate::stage::{CaseResult, Stage, ensure, ensure_eq};

const GROUPS: Characteristic = Characteristic::Groups;

cases! { "partition";
    every_member_agrees_on_every_owner [Has(GROUPS)];
    every_key_belongs_to_exactly_one_member [Has(GROUPS)];
    an_observer_agrees_and_owns_nothing [Has(GROUPS)];
    replicas_are_different_members [Has(GROUPS)];
    a_newcomer_takes_keys_and_no_other_member_gains [Has(GROUPS)];
    weights_are_shares [Has(GROUPS)];
    weight_zero_is_no_share [Has(GROUPS)];
    a_new_weight_applies [Has(GROUPS)];
    who_left_owns_nothing [Has(GROUPS)];
    after_ones_own_loss_nothing_belongs_to_self [Has(GROUPS), EndSession];
    assigned_loads_are_bounded [Has(GROUPS)];
    an_empty_group_has_no_owners [Has(GROUPS)];
    the_end_of_the_group_is_told [Has(GROUPS)];
}

fn keys() -> impl Iterator<Item = String> {
    (0..200).map(|index| format!("key-{index}"))
}

async fn members(stage: &Stage, count: usize) -> CaseResult<(Vec<Coordinator>, Vec<Membership>)> {
    let coordinators = stage.connect_all(count).await?;
    let mut memberships = Vec::new();
    for coordinator in &coordinators {
        memberships.push(stage.soon("joining", coordinator.group("g")?.join_or_create(&json!({}))).await??);
    }
    Ok((coordinators, memberships))
}

async fn partitioners(stage: &Stage, memberships: &[Membership]) -> CaseResult<Vec<Partitioner>> {
    let mut all = Vec::new();
    for membership in memberships {
        all.push(stage.soon("partitioning", membership.partitioner()).await??);
    }
    Ok(all)
}

/// Key by key, its owner.
fn owners(partitioner: &Partitioner) -> Vec<Option<String>> {
    keys().map(|key| partitioner.members_for(key, 1).first().map(ToString::to_string)).collect()
}

/// How many keys each owns.
fn shares(partitioner: &Partitioner) -> BTreeMap<String, usize> {
    let mut shares = BTreeMap::new();
    for owner in owners(partitioner).into_iter().flatten() {
        *shares.entry(owner).or_default() += 1;
    }
    shares
}

async fn every_member_agrees_on_every_owner(stage: Stage) -> CaseResult {
    let (_coordinators, memberships) = members(&stage, 4).await?;
    let all = partitioners(&stage, &memberships).await?;
    let first = owners(&all[0]);
    ensure!(first.iter().all(Option::is_some), "a key has no owner");
    for other in &all[1..] {
        ensure!(owners(other) == first, "two members disagree");
    }
    ensure_eq!(shares(&all[0]).len(), 4, "members with a share");
    Ok(())
}

async fn every_key_belongs_to_exactly_one_member(stage: Stage) -> CaseResult {
    let (_coordinators, memberships) = members(&stage, 3).await?;
    let all = partitioners(&stage, &memberships).await?;
    for key in keys() {
        let count = all.iter().filter(|one| one.belongs_to_self(&key)).count();
        ensure_eq!(count, 1, "owners of {key}");
    }
    Ok(())
}

async fn an_observer_agrees_and_owns_nothing(stage: Stage) -> CaseResult {
    let (_coordinators, memberships) = members(&stage, 3).await?;
    let member = stage.soon("partitioning", memberships[0].partitioner()).await??;
    let observer = stage.connect("observer").await?;
    let observer = stage.soon("partitioning", observer.group("g")?.partitioner()).await??;
    ensure!(owners(&observer) == owners(&member), "the observer disagrees");
    ensure!(!keys().any(|key| observer.belongs_to_self(key)), "a key belongs to an observer");
    Ok(())
}

async fn replicas_are_different_members(stage: Stage) -> CaseResult {
    let (_coordinators, memberships) = members(&stage, 4).await?;
    let partitioner = stage.soon("partitioning", memberships[0].partitioner()).await??;
    for key in keys() {
        let three = partitioner.members_for(&key, 3);
        let mut distinct = three.clone();
        distinct.sort();
        distinct.dedup();
        ensure_eq!(distinct.len(), 3, "different replicas of {key}");
        ensure_eq!(partitioner.members_for(&key, 2)[..], three[..2], "the first two replicas of {key}");
        ensure_eq!(partitioner.members_for(&key, 9).len(), 4, "more replicas than members");
    }
    Ok(())
}

async fn a_newcomer_takes_keys_and_no_other_member_gains(stage: Stage) -> CaseResult {
    let (_coordinators, memberships) = members(&stage, 3).await?;
    let mut partitioner = stage.soon("partitioning", memberships[0].partitioner()).await??;
    let before = owners(&partitioner);
    let newcomer = stage.connect("newcomer").await?;
    let _membership = stage.join(&newcomer.group("g")?).await?;
    ensure!(stage.soon("the news", partitioner.changed()).await?, "the group is there");
    let after = owners(&partitioner);
    ensure!(before != after, "the newcomer has no share");
    for (before, after) in before.iter().zip(&after) {
        ensure!(before == after || after.as_deref() == Some("newcomer"), "a key moved from {before:?} to {after:?}");
    }
    Ok(())
}

/// A group of `heavy` with that weight, and `light` with none given.
async fn heavy_and_light(stage: &Stage, weight: u32) -> CaseResult<(Membership, Membership, Partitioner)> {
    let heavy = stage.connect("heavy").await?.group("g")?;
    let heavy = stage.soon("joining", heavy.join_or_create(&json!({ "weight": weight }))).await??;
    let light = stage.connect("light").await?.group("g")?;
    let light = stage.soon("joining", light.join(&json!({}))).await??;
    let partitioner = stage.soon("partitioning", light.partitioner()).await??;
    Ok((heavy, light, partitioner))
}

async fn weights_are_shares(stage: Stage) -> CaseResult {
    let (_heavy, _light, partitioner) = heavy_and_light(&stage, 9).await?;
    let shares = shares(&partitioner);
    let (heavy, light) = (shares.get("heavy").copied().unwrap_or(0), shares.get("light").copied().unwrap_or(0));
    // Nine to one; hashing is not exact, so anything clearly above even will do.
    ensure!(heavy > light * 3 && light > 0, "nine to one became {heavy} to {light}");
    Ok(())
}

async fn weight_zero_is_no_share(stage: Stage) -> CaseResult {
    let (heavy, light, partitioner) = heavy_and_light(&stage, 0).await?;
    ensure_eq!(shares(&partitioner).keys().collect::<Vec<_>>(), ["light"], "the members with a share");
    let own = stage.soon("partitioning", heavy.partitioner()).await??;
    ensure!(!keys().any(|key| own.belongs_to_self(key)), "a key belongs to weight zero");
    stage.soon("leaving", light.leave()).await??;
    stage.eventually(stage.patience(), "no member with a share is left", async || Ok(shares(&own).is_empty())).await
}

async fn a_new_weight_applies(stage: Stage) -> CaseResult {
    let (heavy, _light, mut partitioner) = heavy_and_light(&stage, 1).await?;
    let even = owners(&partitioner);
    stage.soon("updating", heavy.update(&json!({ "weight": 20 }))).await??;
    ensure!(stage.soon("the news", partitioner.changed()).await?, "the group is there");
    let share = shares(&partitioner).get("heavy").copied().unwrap_or(0);
    ensure!(share > 150, "the new weight did not apply: {share} of 200 keys");
    stage.soon("updating", heavy.update(&json!({ "weight": 1 }))).await??;
    ensure!(stage.soon("the news", partitioner.changed()).await?, "the group is there");
    ensure!(owners(&partitioner) == even, "the old weight did not bring the old owners back");
    Ok(())
}

async fn who_left_owns_nothing(stage: Stage) -> CaseResult {
    let (_coordinators, mut memberships) = members(&stage, 3).await?;
    let mut staying = stage.soon("partitioning", memberships[0].partitioner()).await??;
    let leaving = memberships.remove(2);
    let own = stage.soon("partitioning", leaving.partitioner()).await??;
    ensure!(keys().any(|key| own.belongs_to_self(key)), "a member has a share");
    stage.soon("leaving", leaving.leave()).await??;
    ensure!(!keys().any(|key| own.belongs_to_self(key)), "a key belongs to a member that left");
    ensure!(stage.soon("the news", staying.changed()).await?, "the group is there");
    ensure_eq!(shares(&staying).len(), 2, "members with a share");
    Ok(())
}

async fn after_ones_own_loss_nothing_belongs_to_self(stage: Stage) -> CaseResult {
    let (_coordinators, memberships) = members(&stage, 2).await?;
    let partitioner = stage.soon("partitioning", memberships[0].partitioner()).await??;
    let loss = memberships[0].loss();
    ensure!(keys().any(|key| partitioner.belongs_to_self(key)), "a member has a share");
    stage.end_session("m0").await?;
    stage.within(stage.after_a_crash(), "the loss", loss.wait()).await?;
    // By now the membership may be back already.
    let reached = keys().any(|key| partitioner.belongs_to_self(key));
    ensure!(!reached || memberships[0].is_member(), "a key belongs to one that is no member");
    // The membership comes back by itself, and its keys with it.
    stage
        .eventually(stage.after_a_crash(), "the keys come back with the membership", async || {
            Ok(keys().any(|key| partitioner.belongs_to_self(key)))
        })
        .await
}

async fn assigned_loads_are_bounded(stage: Stage) -> CaseResult {
    let (_coordinators, memberships) = members(&stage, 4).await?;
    let all = partitioners(&stage, &memberships).await?;
    let assigned = all[0].assign(keys());
    ensure_eq!(assigned.len(), 200, "assigned keys");
    let mut loads = BTreeMap::new();
    for member in assigned.values() {
        *loads.entry(member.to_string()).or_insert(0_u32) += 1;
    }
    for (member, load) in &loads {
        // 1.25 times the fair share of 50, rounded up.
        ensure!(*load <= 63, "{member} has {load} of 200 keys among 4");
    }
    ensure!(all[1].assign(keys()) == assigned, "two members disagree");
    Ok(())
}

async fn an_empty_group_has_no_owners(stage: Stage) -> CaseResult {
    let (_coordinator, group) = stage.with_group("a", "g").await?;
    let partitioner = stage.soon("partitioning", group.partitioner()).await??;
    ensure_eq!(partitioner.members_for("x", 3), Vec::new(), "the owners");
    ensure!(!partitioner.belongs_to_self("x"), "in an empty group a key belongs to a member");
    ensure!(partitioner.assign(["x"]).is_empty(), "in an empty group a key is assigned");
    Ok(())
}

async fn the_end_of_the_group_is_told(stage: Stage) -> CaseResult {
    let (_coordinator, group) = stage.with_group("a", "g").await?;
    let mut partitioner = stage.soon("partitioning", group.partitioner()).await??;
    stage.soon("deleting", group.delete()).await??;
    let ended = async { while partitioner.changed().await {} };
    stage.within(stage.patience() + Duration::from_secs(1), "the end of the partitioner", ended).await
}
