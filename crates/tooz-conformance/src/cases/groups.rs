//! Groups: making and deleting them, joining, leaving, and what members say of themselves.

use serde_json::{Value, json};
use tooz_core::{Capabilities, Characteristic, ErrorKind, Group, JoinOptions, LossReason, Membership};

use crate::cases::Requirement::{Has, HasTimeout, Lacks, Quiet};
use crate::cases::cases;
use crate::stage::{CaseFailure, CaseResult, Stage, ensure, ensure_eq, refused};

const GROUPS: Characteristic = Characteristic::Groups;

cases! { "groups";
    a_group_is_made_listed_and_deleted [Has(GROUPS)];
    a_second_create_is_refused [Has(GROUPS)];
    what_is_missing_is_not_found [Has(GROUPS)];
    a_group_with_members_is_not_deleted [Has(GROUPS)];
    a_member_that_joins_is_listed_for_all [Has(GROUPS)];
    join_or_create_makes_the_group_once [Has(GROUPS)];
    who_left_is_gone [Has(GROUPS)];
    a_dropped_membership_leaves [Has(GROUPS)];
    closing_leaves_every_group [Has(GROUPS)];
    who_leaves_may_rejoin_at_once [Has(GROUPS)];
    fifty_join_at_once [Has(GROUPS), Quiet];
    capabilities_may_be_any_json [Has(GROUPS)];
    an_update_is_seen_by_all_members [Has(GROUPS)];
    a_living_namesake_is_refused [Has(GROUPS)];
    a_refused_namesake_is_told_when_to_retry [Has(GROUPS), HasTimeout];
    a_takeover_replaces_the_membership_alone [Has(GROUPS)];
    a_second_join_of_one_coordinator_is_refused [Has(GROUPS)];
    a_group_with_a_slash_is_no_member [Has(GROUPS)];
    one_member_may_be_in_many_groups [Has(GROUPS)];
    locks_are_not_listed_as_groups [Has(GROUPS)];
    without_groups_every_call_is_unsupported [Lacks(GROUPS)];
}

async fn a_group_is_made_listed_and_deleted(stage: Stage) -> CaseResult {
    let (coordinator, group) = stage.with_group("a", "g").await?;
    let other = stage.connect("b").await?;
    ensure_eq!(stage.group_names(&other).await?, ["g"], "the groups");
    ensure_eq!(stage.member_names(&other.group("g")?).await?, Vec::<String>::new(), "the members of the new group");
    stage.soon("deleting", other.group("g")?.delete()).await??;
    ensure_eq!(stage.group_names(&coordinator).await?, Vec::<String>::new(), "the groups after deleting");
    stage.soon("creating again", group.create()).await??;
    Ok(())
}

async fn a_second_create_is_refused(stage: Stage) -> CaseResult {
    let (_coordinator, group) = stage.with_group("a", "g").await?;
    refused("a second create", stage.soon("it", group.create()).await?, ErrorKind::AlreadyExists)?;
    let other = stage.connect("b").await?.group("g")?;
    let error = refused("a second create", stage.soon("it", other.create()).await?, ErrorKind::AlreadyExists)?;
    ensure!(error.to_string().contains('g'), "the error does not name the group: {error}");
    Ok(())
}

async fn what_is_missing_is_not_found(stage: Stage) -> CaseResult {
    let group = stage.connect("a").await?.group("nowhere")?;
    let missing = ErrorKind::NotFound;
    refused("delete", stage.soon("it", group.delete()).await?, missing)?;
    refused("members", stage.soon("it", group.members()).await?, missing)?;
    refused("join", stage.soon("it", group.join(&1)).await?, missing)?;
    let take_over = group.join_with(JoinOptions::new().take_over());
    refused("a take-over", stage.soon("it", take_over).await?, missing)?;
    let error = refused("watch", stage.soon("it", group.watch()).await?, missing)?;
    ensure!(error.to_string().contains("nowhere"), "the error does not name the group: {error}");
    Ok(())
}

async fn a_group_with_members_is_not_deleted(stage: Stage) -> CaseResult {
    let (_coordinator, group) = stage.with_group("a", "g").await?;
    let membership = stage.join(&group).await?;
    let other = stage.connect("b").await?.group("g")?;
    for group in [&group, &other] {
        refused("deleting a group with a member", stage.soon("it", group.delete()).await?, ErrorKind::NotEmpty)?;
    }
    ensure!(membership.is_member(), "the refused delete ended the membership");
    ensure_eq!(stage.member_names(&other).await?, ["a"], "the members after a refused delete");
    stage.soon("leaving", membership.leave()).await??;
    stage.soon("deleting the empty group", other.delete()).await??;
    Ok(())
}

async fn a_member_that_joins_is_listed_for_all(stage: Stage) -> CaseResult {
    let (_coordinator, group) = stage.with_group("a", "g").await?;
    let other = stage.connect("b").await?.group("g")?;
    let (one, two) = (stage.join(&group).await?, stage.join(&other).await?);
    for group in [&group, &other] {
        ensure_eq!(stage.member_names(group).await?, ["a", "b"], "the members");
    }
    ensure!(one.is_member() && two.is_member(), "both have joined");
    ensure_eq!(one.member().as_str(), "a", "the member");
    ensure_eq!(one.group().as_str(), "g", "the group");
    Ok(())
}

async fn join_or_create_makes_the_group_once(stage: Stage) -> CaseResult {
    let mut joins = Vec::new();
    for coordinator in stage.connect_all(8).await? {
        let group = coordinator.group("g")?;
        joins.push(tokio::spawn(async move { group.join_or_create(&1).await }));
    }
    let mut memberships = Vec::new();
    for join in joins {
        memberships.push(stage.soon("joining", join).await???);
    }
    let watcher = stage.connect("watcher").await?;
    ensure_eq!(stage.group_names(&watcher).await?, ["g"], "the groups");
    ensure_eq!(stage.member_names(&watcher.group("g")?).await?.len(), 8, "the members");
    Ok(())
}

async fn who_left_is_gone(stage: Stage) -> CaseResult {
    let (_coordinator, group) = stage.with_group("a", "g").await?;
    let other = stage.connect("b").await?.group("g")?;
    let membership = stage.join(&group).await?;
    let loss = membership.loss();
    let _other = stage.join(&other).await?;
    for group in [&group, &other] {
        ensure_eq!(stage.member_names(group).await?, ["a", "b"], "the members before");
    }
    stage.soon("leaving", membership.leave()).await??;
    ensure!(loss.is_lost(), "a member that left is no member");
    for group in [&group, &other] {
        ensure_eq!(stage.member_names(group).await?, ["b"], "the members");
    }
    Ok(())
}

async fn a_dropped_membership_leaves(stage: Stage) -> CaseResult {
    let (_coordinator, group) = stage.with_group("a", "g").await?;
    drop(stage.join(&group).await?);
    stage
        .eventually(stage.patience(), "a dropped membership is gone", async || {
            Ok(stage.member_names(&group).await?.is_empty())
        })
        .await
}

async fn closing_leaves_every_group(stage: Stage) -> CaseResult {
    let (_watcher, first) = stage.with_group("watcher", "g1").await?;
    let (coordinator, _) = stage.with_group("a", "g2").await?;
    let _one = stage.join(&coordinator.group("g1")?).await?;
    let _two = stage.join(&coordinator.group("g2")?).await?;
    stage.soon("closing", coordinator.close()).await??;
    ensure_eq!(stage.member_names(&first).await?, Vec::<String>::new(), "the members of g1 after close");
    stage.soon("deleting", stage.connect("b").await?.group("g2")?.delete()).await??;
    Ok(())
}

async fn who_leaves_may_rejoin_at_once(stage: Stage) -> CaseResult {
    let (_coordinator, group) = stage.with_group("a", "g").await?;
    for round in 0..10 {
        let membership = stage.soon("joining", group.join(&round)).await??;
        let members = stage.soon("listing", group.members()).await??;
        ensure_eq!(members.len(), 1, "members in round {round}");
        ensure_eq!(members[0].capabilities.get::<i32>()?, round, "whose membership it is");
        stage.soon("leaving", membership.leave()).await??;
    }
    Ok(())
}

async fn fifty_join_at_once(stage: Stage) -> CaseResult {
    let (_watcher, group) = stage.with_group("watcher", "g").await?;
    let coordinators = stage.connect_all(50).await?;
    let mut joins = Vec::new();
    for (index, coordinator) in coordinators.iter().enumerate() {
        let group = coordinator.group("g")?;
        joins.push(tokio::spawn(async move { group.join(&json!({ "index": index })).await }));
    }
    let mut memberships = Vec::new();
    for join in joins {
        memberships.push(stage.soon("one of fifty joins", join).await???);
    }
    let members = stage.soon("listing", group.members()).await??;
    ensure_eq!(members.len(), 50, "the members");
    for entry in members {
        let index = entry.capabilities.get::<Value>()?["index"].clone();
        ensure_eq!(entry.member.as_str(), format!("m{index}"), "whose capabilities");
    }
    let leaves: Vec<_> = memberships.into_iter().map(|one| tokio::spawn(one.leave())).collect();
    for leave in leaves {
        stage.soon("one of fifty leaves", leave).await???;
    }
    ensure_eq!(stage.member_names(&group).await?, Vec::<String>::new(), "the members at the end");
    Ok(())
}

fn every_kind() -> Vec<Value> {
    vec![
        Value::Null,
        json!(true),
        json!(false),
        json!(0),
        json!(-1),
        json!(u64::MAX),
        json!(i64::MIN),
        json!(0.5),
        json!(1e300),
        json!(""),
        json!("text with \"quotes\", \\ and \n a new line"),
        json!("Ä 🦀 \u{0} \u{1f}"),
        json!([]),
        json!([1, [2, [3, null]], "x"]),
        json!({}),
        json!({ "": 0, "a b": { "nested": [true, { "deep": {} }] }, "weight": 2 }),
        json!("x".repeat(5000)),
    ]
}

async fn only_entry(stage: &Stage, group: &Group) -> CaseResult<Capabilities> {
    let mut members = stage.soon("listing", group.members()).await??;
    match (members.pop(), members.is_empty()) {
        (Some(entry), true) => Ok(entry.capabilities),
        _ => Err(CaseFailure::new("there is exactly one member")),
    }
}

async fn capabilities_may_be_any_json(stage: Stage) -> CaseResult {
    let (_coordinator, group) = stage.with_group("a", "g").await?;
    let other = stage.connect("b").await?.group("g")?;
    for value in every_kind() {
        let membership = stage.soon("joining", group.join(&value)).await??;
        ensure_eq!(only_entry(&stage, &other).await?.get::<Value>()?, value, "as joined with");
        stage.soon("leaving", membership.leave()).await??;
    }
    let membership = stage.join(&group).await?;
    for value in every_kind() {
        stage.soon("updating", membership.update(&value)).await??;
        ensure_eq!(only_entry(&stage, &other).await?.get::<Value>()?, value, "as updated to");
    }
    Ok(())
}

async fn an_update_is_seen_by_all_members(stage: Stage) -> CaseResult {
    let (_coordinator, group) = stage.with_group("a", "g").await?;
    let other = stage.connect("b").await?.group("g")?;
    let (membership, _other) = (stage.join(&group).await?, stage.join(&other).await?);
    stage.soon("updating", membership.update(&"new")).await??;
    for group in [&group, &other] {
        let members = stage.soon("listing", group.members()).await??;
        ensure_eq!(members.len(), 2, "the members after an update");
        ensure_eq!(members[0].capabilities.get::<String>()?, "new", "the capabilities of a");
        ensure_eq!(members[1].capabilities.as_json(), "null", "the capabilities of b");
    }
    ensure!(membership.is_member(), "an update is no leave");
    Ok(())
}

async fn a_living_namesake_is_refused(stage: Stage) -> CaseResult {
    let (_first, group) = stage.with_group("same", "g").await?;
    let membership = stage.soon("joining", group.join(&"first")).await??;
    let second = stage.connect("same").await?;
    let result = stage.soon("it", second.group("g")?.join(&"second")).await?;
    refused("a second member of the same id", result, ErrorKind::AlreadyExists)?;
    ensure_eq!(
        only_entry(&stage, &group).await?.get::<String>()?,
        "first",
        "whose capabilities stand after the refusal"
    );
    // Neither does the end of the refused one take the first one's membership away.
    stage.soon("closing", second.close()).await??;
    ensure!(membership.is_member(), "the namesake's close ended it");
    ensure_eq!(only_entry(&stage, &group).await?.get::<String>()?, "first", "whose capabilities stand in the end");
    stage.soon("leaving", membership.leave()).await??;
    let third = stage.connect("same").await?;
    drop(stage.join(&third.group("g")?).await?);
    Ok(())
}

async fn a_refused_namesake_is_told_when_to_retry(stage: Stage) -> CaseResult {
    let (_first, group) = stage.with_group("same", "g").await?;
    let _membership = stage.join(&group).await?;
    let second = stage.connect("same").await?;
    let result = stage.soon("it", second.group("g")?.join(&1)).await?;
    let error = refused("a second member of the same id", result, ErrorKind::AlreadyExists)?;
    let after = error.retry_after().ok_or_else(|| CaseFailure::new("there is no retry_after"))?;
    let latest = stage.session_timeout() + stage.rig().lingering;
    ensure!(after <= latest, "{after:?} is more than the {latest:?} after which the dead are gone");
    ensure!(error.is_retryable(), "it may succeed later");
    // One that lives on is not waited for longer than that.
    let limit = after + std::time::Duration::from_secs(3) + stage.patience();
    let group = second.group("g")?;
    let waiting = group.join_with(JoinOptions::new().wait());
    let result = stage.within(limit, "the end of the wait", waiting).await?;
    refused("a member that waits for a living namesake", result, ErrorKind::AlreadyExists)?;
    Ok(())
}

async fn a_takeover_replaces_the_membership_alone(stage: Stage) -> CaseResult {
    let (first, group) = stage.with_group("same", "g").await?;
    let guard = stage.hold(&first.lock("x")?).await?;
    let old = stage.soon("joining", group.join(&"old")).await??;
    let second = stage.connect("same").await?;
    let options = JoinOptions::new().take_over().capabilities(Capabilities::new(&"new")?);
    let new = stage.soon("taking over", second.group("g")?.join_with(options)).await??;
    ensure_eq!(only_entry(&stage, &group).await?.get::<String>()?, "new", "whose capabilities");
    let limit = stage.session_timeout() + std::time::Duration::from_secs(2);
    let reason = stage.within(limit, "the old membership's loss", old.loss().wait()).await?;
    ensure_eq!(reason, LossReason::TakenOver, "the reason");
    ensure!(!old.is_member() && new.is_member(), "it changed hands");
    let over = stage.soon("hearing that it is over", old.wait_standing()).await?;
    ensure_eq!(over, Err(LossReason::TakenOver), "whether the old one will stand again");
    ensure_eq!(old.over(), Some(LossReason::TakenOver), "why the old one is over");
    ensure_eq!(new.over(), None, "whether the new one is over");
    ensure!(guard.is_held(), "the old session's lock was lost with the membership");
    let result = stage.soon("updating", old.update(&"ghost")).await?;
    refused("an update of what was taken over", result, ErrorKind::NotMember)?;
    // The old one's leave is no business of the new one.
    drop(old);
    stage.soon("closing", first.close()).await??;
    ensure!(new.is_member(), "the old session's end took the new membership away");
    ensure_eq!(only_entry(&stage, &second.group("g")?).await?.get::<String>()?, "new", "whose capabilities in the end");
    Ok(())
}

async fn a_second_join_of_one_coordinator_is_refused(stage: Stage) -> CaseResult {
    let (_coordinator, group) = stage.with_group("a", "g").await?;
    let first: Membership = stage.soon("joining", group.join(&"first")).await??;
    let result = stage.soon("it", group.join(&"second")).await?;
    refused("a second join", result, ErrorKind::AlreadyExists)?;
    ensure_eq!(
        only_entry(&stage, &group).await?.get::<String>()?,
        "first",
        "the failed join overwrote the capabilities"
    );
    ensure!(first.is_member(), "the failed join ended the membership");
    Ok(())
}

async fn a_group_with_a_slash_is_no_member(stage: Stage) -> CaseResult {
    let coordinator = stage.connect("x").await?;
    for name in ["a", "a/x", "a/x/y"] {
        stage.soon("creating", coordinator.group(name)?.create()).await??;
    }
    let names: Vec<String> = stage.group_names(&coordinator).await?;
    ensure_eq!(names, ["a", "a/x", "a/x/y"], "the groups");
    let membership = stage.join(&coordinator.group("a/x")?).await?;
    ensure_eq!(stage.member_names(&coordinator.group("a")?).await?, Vec::<String>::new(), "the members of a");
    ensure_eq!(stage.member_names(&coordinator.group("a/x/y")?).await?, Vec::<String>::new(), "the members of a/x/y");
    stage.soon("deleting", coordinator.group("a")?.delete()).await??;
    ensure!(membership.is_member(), "deleting another group ended the membership");
    ensure_eq!(stage.member_names(&coordinator.group("a/x")?).await?, ["x"], "the members of a/x");
    Ok(())
}

async fn one_member_may_be_in_many_groups(stage: Stage) -> CaseResult {
    let coordinator = stage.connect("a").await?;
    let mut memberships = Vec::new();
    for index in 0..10 {
        let group = coordinator.group(format!("g{index}"))?;
        memberships.push(stage.soon("joining", group.join_or_create(&index)).await??);
    }
    stage.soon("leaving one", memberships.remove(3).leave()).await??;
    for index in 0..10 {
        let members = stage.member_names(&coordinator.group(format!("g{index}"))?).await?;
        ensure_eq!(members.len(), usize::from(index != 3), "members of g{index}");
    }
    Ok(())
}

async fn locks_are_not_listed_as_groups(stage: Stage) -> CaseResult {
    let (coordinator, group) = stage.with_group("a", "g").await?;
    let membership = stage.join(&group).await?;
    let guard = stage.hold(&coordinator.lock("a lock")?).await?;
    let leadership = stage.soon("being elected", membership.campaign()).await??;
    ensure_eq!(stage.group_names(&coordinator).await?, ["g"], "the groups");
    stage.soon("resigning", leadership.resign()).await??;
    stage.give(guard).await?;
    ensure_eq!(stage.group_names(&coordinator).await?, ["g"], "the groups");
    Ok(())
}

async fn without_groups_every_call_is_unsupported(stage: Stage) -> CaseResult {
    let coordinator = stage.connect("a").await?;
    let group = coordinator.group("g")?;
    let unsupported = ErrorKind::Unsupported;
    refused("groups", stage.soon("it", coordinator.groups()).await?, unsupported)?;
    refused("create", stage.soon("it", group.create()).await?, unsupported)?;
    refused("delete", stage.soon("it", group.delete()).await?, unsupported)?;
    refused("members", stage.soon("it", group.members()).await?, unsupported)?;
    refused("join", stage.soon("it", group.join(&1)).await?, unsupported)?;
    refused("join_or_create", stage.soon("it", group.join_or_create(&1)).await?, unsupported)?;
    refused("watch", stage.soon("it", group.watch()).await?, unsupported)?;
    Ok(())
}
