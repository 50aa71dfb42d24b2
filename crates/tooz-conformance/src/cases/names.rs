//! Any name works, stays distinct, and stays inside.

use tooz_core::{Characteristic, Coordinator, ErrorKind};

use crate::cases::Requirement::Has;
use crate::cases::cases;
use crate::stage::{CaseResult, Stage, ensure, ensure_eq, refused};

cases! { "names";
    nasty_lock_names_work_and_stay_distinct [];
    nasty_member_ids_are_told_as_holders [];
    nasty_group_names_work_and_stay_distinct [Has(Characteristic::Groups)];
    nasty_member_ids_work_and_stay_distinct [Has(Characteristic::Groups)];
    nasty_group_names_have_elections_of_their_own [Has(Characteristic::Groups)];
    bad_names_are_refused_with_a_reason [];
    a_lock_a_group_and_a_member_of_one_name_never_meet [Has(Characteristic::Groups)];
}

/// What has broken lock libraries before: separators, dots, blanks, case, escapes, length.
fn nasty() -> Vec<String> {
    let mut names: Vec<String> = [
        "a/b", "a", "b", "/", "/a", "a/", "a//b", "..", ".", "../x", "x", "...", "a b", " a", "a ", "Ä", "ä",
        "A\u{308}", "A", "%2F", "%2f", "%", "a%2Fb", "-x", "--", "~", "~a", "*", "?", "[a]", "{a}", "{a", "'", "\"",
        "\\", "\\x00", ";--", "$HOME", ":", "a:b", "#", "@", "&", "=", "+", "null", "CON", "nul.txt", "🦀", "０", "0",
        "lock", "locks", "groups", "members",
    ]
    .map(String::from)
    .to_vec();
    names.push("n".repeat(255));
    names.push("n".repeat(254));
    names.push("Ä".repeat(127));
    names.push(format!("{}b", "Ä".repeat(126)));
    names.push("/".repeat(255));
    names.push(".".repeat(255));
    names
}

async fn nasty_lock_names_work_and_stay_distinct(stage: Stage) -> CaseResult {
    let (a, b) = (stage.connect("a").await?, stage.connect("b").await?);
    let mut held = Vec::new();
    for name in nasty() {
        let guard = stage.attempt(&a.lock(&name)?).await?;
        ensure!(guard.is_some(), "{name:?} is not free although it was not taken: it meets another name");
        held.extend(guard);
    }
    for (name, guard) in nasty().into_iter().zip(held) {
        let lock = b.lock(&name)?;
        ensure!(stage.attempt(&lock).await?.is_none(), "{name:?} is held and was granted again");
        let holders = stage.soon("holders", lock.holders()).await??;
        ensure_eq!(holders.len(), 1, "holders of {name:?}");
        ensure_eq!(holders[0].token, guard.fencing_token(), "the holder of {name:?}");
        stage.give(guard).await?;
        ensure!(stage.attempt(&lock).await?.is_some(), "{name:?} was released and is not free");
    }
    Ok(())
}

async fn nasty_member_ids_are_told_as_holders(stage: Stage) -> CaseResult {
    let watcher = stage.connect("watcher").await?;
    for name in nasty().into_iter().step_by(3) {
        let coordinator = stage.connect(&name).await?;
        let guard = stage.hold(&coordinator.lock("x")?).await?;
        let holders = stage.soon("holders", watcher.lock("x")?.holders()).await??;
        ensure_eq!(holders.len(), 1, "holders while {name:?} holds");
        ensure_eq!(holders[0].member.as_str(), name, "the holder's name");
        stage.give(guard).await?;
        stage.soon("closing", coordinator.close()).await??;
    }
    Ok(())
}

async fn nasty_group_names_work_and_stay_distinct(stage: Stage) -> CaseResult {
    let coordinator = stage.connect("a").await?;
    let mut names = nasty();
    let mut memberships = Vec::new();
    for name in &names {
        stage.soon("creating", coordinator.group(name)?.create()).await??;
    }
    for name in names.iter().step_by(2) {
        memberships.push(stage.soon("joining", coordinator.group(name)?.join(name)).await??);
    }
    for (index, name) in names.iter().enumerate() {
        let members = stage.soon("listing", coordinator.group(name)?.members()).await??;
        ensure_eq!(members.len(), usize::from(index % 2 == 0), "members of {name:?}");
        if let Some(entry) = members.first() {
            ensure_eq!(entry.capabilities.get::<String>()?, *name, "the capabilities in {name:?}");
        }
    }
    names.sort();
    ensure_eq!(stage.group_names(&coordinator).await?, names, "the listed groups");
    for membership in memberships {
        stage.soon("leaving", membership.leave()).await??;
    }
    for name in &names {
        stage.soon("deleting", coordinator.group(name)?.delete()).await??;
    }
    ensure_eq!(stage.group_names(&coordinator).await?, Vec::<String>::new(), "after deleting all");
    Ok(())
}

async fn nasty_member_ids_work_and_stay_distinct(stage: Stage) -> CaseResult {
    let (_watcher, group) = stage.with_group("watcher", "g").await?;
    let mut names = nasty();
    let mut memberships = Vec::new();
    for name in &names {
        let coordinator = stage.connect(name).await?;
        memberships.push(stage.soon("joining", coordinator.group("g")?.join(name)).await??);
    }
    for entry in stage.soon("listing", group.members()).await?? {
        ensure_eq!(entry.capabilities.get::<String>()?, entry.member.as_str(), "whose capabilities");
    }
    names.sort();
    ensure_eq!(stage.member_names(&group).await?, names, "the listed members");
    // Each leave takes exactly its own entry away.
    let first = memberships.remove(0);
    let gone = first.member().as_str().to_owned();
    stage.soon("leaving", first.leave()).await??;
    names.retain(|name| *name != gone);
    ensure_eq!(stage.member_names(&group).await?, names, "after {gone:?} left");
    Ok(())
}

async fn nasty_group_names_have_elections_of_their_own(stage: Stage) -> CaseResult {
    let coordinator = stage.connect("a").await?;
    let mut leaders = Vec::new();
    for name in nasty().into_iter().step_by(2) {
        let membership = stage.soon("joining", coordinator.group(&name)?.join_or_create(&())).await??;
        let leadership = stage.soon(&format!("being elected in {name:?}"), membership.campaign()).await??;
        leaders.push((name, membership, leadership));
    }
    for (name, _membership, leadership) in &leaders {
        let leader = stage.soon("asking for the leader", coordinator.group(name)?.leader()).await??;
        ensure_eq!(leader.map(|leader| leader.epoch), Some(leadership.epoch()), "the leader of {name:?}");
    }
    Ok(())
}

async fn bad_names_are_refused_with_a_reason(stage: Stage) -> CaseResult {
    async fn reasons(stage: &Stage, coordinator: &Coordinator, name: &str, reason: &str) -> CaseResult {
        let lock = refused("a lock name", coordinator.lock(name), ErrorKind::Config)?;
        let group = refused("a group name", coordinator.group(name), ErrorKind::Config)?;
        let member = refused("a member id", tooz_core::connect(stage.url(), name).await, ErrorKind::Config)?;
        for error in [lock, group, member] {
            ensure!(error.to_string().contains(reason), "no {reason:?} in: {error}");
        }
        Ok(())
    }
    let coordinator = stage.connect("a").await?;
    reasons(&stage, &coordinator, "", "empty").await?;
    reasons(&stage, &coordinator, &"x".repeat(256), "255").await?;
    reasons(&stage, &coordinator, "a\0b", "control").await?;
    reasons(&stage, &coordinator, "a\nb", "control").await
}

async fn a_lock_a_group_and_a_member_of_one_name_never_meet(stage: Stage) -> CaseResult {
    let coordinator = stage.connect("x").await?;
    let guard = stage.hold(&coordinator.lock("x")?).await?;
    ensure_eq!(stage.group_names(&coordinator).await?, Vec::<String>::new(), "a lock is listed as a group");
    let group = coordinator.group("x")?;
    stage.soon("creating", group.create()).await??;
    ensure_eq!(stage.member_names(&group).await?, Vec::<String>::new(), "a lock or group is listed as a member");
    let membership = stage.join(&group).await?;
    ensure!(guard.is_held(), "the lock has nothing to do with the group");
    stage.give(guard).await?;
    ensure!(membership.is_member(), "the membership has nothing to do with the lock");
    ensure_eq!(stage.member_names(&group).await?, ["x"], "the members");
    Ok(())
}
