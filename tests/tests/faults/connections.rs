//! Backends whose sessions are connections: what ends the connection ends the session, at once and on both sides.
//!
//! Within the timeout nothing is kept there, so other things are promised: a client that loses something is told at once, what comes back
//! by itself comes back, and no holder is left that is unknown to all. Between the server, which frees, and the client,
//! which is told, there is no order: that is what the fencing tokens are for.

use std::time::{Duration, Instant};

use tokio::time::sleep;
use tooz::{ErrorKind, GroupEvent, LossReason};
use tooz_testbed::{Kind, Server};

use crate::cut::{refuse_all, resets};
use crate::dead::is_over;
use crate::postgres;
use crate::replies::{NAME, is_the_next_ones, must_have_happened, told, two};
use crate::servers::{is_mended, is_told_and_mended};
use crate::stage::{
    Belief, LATE, LONG, MOMENT, OPERATION, PATIENCE, SHORT, Stage, attempt, blocking, cases, eventually, hold, names,
    soon, wait_in_background, within,
};

cases! { "connections", Server, alone: false;
    a_restart_is_told_at_once_and_mended,
    a_long_absence_of_the_server_is_told_at_once_and_mended,
    a_reset_is_told_at_once_and_mended,
    resets_in_the_middle_of_everything_leave_one_owner,
    a_lost_reply_of_release_frees_once,
    a_lost_reply_of_join_leaves_one_member,
    closing_ends_in_time_though_the_server_has_gone,
}

async fn a_restart_is_told_at_once_and_mended(stage: &Stage) {
    is_told_and_mended(stage, (Server::kill, Server::restart), LONG, LossReason::SessionEnded).await;
}

async fn a_long_absence_of_the_server_is_told_at_once_and_mended(stage: &Stage) {
    let back = |server: &Server| {
        // No session of that timeout is waited for any more.
        std::thread::sleep(SHORT + LATE);
        server.restart()
    };
    is_told_and_mended(stage, (Server::kill, back), SHORT, LossReason::SessionEnded).await;
}

async fn a_reset_is_told_at_once_and_mended(stage: &Stage) {
    let proxy = stage.proxy();
    let (a, b) = (stage.connect_to(&stage.url_by(&proxy), "a", LONG).await, stage.connect("b", LONG).await);
    let mut events = a.events();
    let group = b.group("g").unwrap();
    let membership = soon("joining", a.group("g").unwrap().join_or_create(&"here")).await.unwrap();
    let guard = hold(&a.lock("x").unwrap()).await;
    let token = guard.fencing_token();
    let waiter = wait_in_background(&b.lock("x").unwrap());
    // It waits at the other end of the broken way.
    let held = hold(&b.lock("y").unwrap()).await;
    let far_waiter = wait_in_background(&a.lock("y").unwrap());
    sleep(MOMENT).await;
    let (loss, membership_loss) = (guard.loss(), membership.loss());
    let belief = Belief::of(guard);

    let broken = Instant::now();
    refuse_all(&proxy);
    assert_eq!(within(LATE, "the loss", loss.wait()).await, LossReason::SessionEnded);
    stage.note("from the reset to the loss", broken.elapsed());
    let (next, granted) = within(stage.inherited_after(LONG) + LATE, "the waiter's turn", waiter).await.unwrap();
    stage.note("from the reset to the next grant", granted - broken);
    let (last, guard) = belief.end().await;
    assert!(last <= granted + LATE, "it was held for {:?} after another had it", last - granted);
    assert!(next.fencing_token() > token, "the token did not grow");
    assert!(membership_loss.is_lost() && !membership.is_member());
    eventually(SHORT + LATE, "who was cut off is no member", async || names(&group).await.is_empty()).await;
    assert_eq!(soon("releasing", guard.release()).await.unwrap_err().kind(), ErrorKind::Lost);
    assert!(next.is_held(), "a lost lock's release freed the next one's");

    // Released while the waiter can't hear of it.
    soon("releasing", held.release()).await.unwrap();
    proxy.heal();
    drop(soon("the turn of the waiter that was cut off", far_waiter).await.unwrap());
    is_mended(&a, &membership, &mut events).await;
    assert_eq!(names(&group).await, ["a"]);
    soon("releasing", next.release()).await.expect("releasing");
    soon("leaving", membership.leave()).await.expect("leaving");
    soon("deleting", group.delete()).await.expect("a group without members can be deleted");
    stage.nothing_is_left().await;
}

/// Connections that break all the time while two clients take turns.
async fn resets_in_the_middle_of_everything_leave_one_owner(stage: &Stage) {
    let proxy = stage.proxy();
    let url = stage.url_by(&proxy);
    let (a, b) = (stage.connect_to(&url, "a", LONG).await, stage.connect_to(&url, "b", LONG).await);
    let resets = resets(&proxy);
    let turns = |lock: tooz::Lock| async move {
        let (mut tokens, mut lost) = (Vec::new(), 0);
        while tokens.len() < 12 {
            let guard = soon("acquiring", lock.acquire()).await.expect("acquiring goes on until it is granted");
            tokens.push(guard.fencing_token());
            sleep(Duration::from_millis(20)).await;
            match soon("releasing", guard.release()).await {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::Lost => lost += 1,
                Err(error) => assert!(error.is_retryable(), "{error:?}"),
            }
        }
        (tokens, lost)
    };
    let both = async { tokio::join!(turns(a.lock("x").unwrap()), turns(b.lock("x").unwrap())) };
    let ((mut tokens, lost), (others, others_lost)) = within(PATIENCE * 2, "the turns", both).await;
    resets.await.unwrap();
    for own in [&tokens, &others] {
        assert!(own.is_sorted(), "the tokens of one did not grow: {own:?}");
    }
    stage.note(&format!("24 turns, of which {} were lost", lost + others_lost), Duration::ZERO);
    tokens.extend(others);
    tokens.sort();
    tokens.dedup();
    assert_eq!(tokens.len(), 24, "a token was given twice");
    let lock = stage.connect("witness", LONG).await.lock("x").unwrap();
    eventually(PATIENCE, "a lock without a holder is free", async || attempt(&lock).await.is_some()).await;
    stage.nothing_is_left().await;
}

async fn a_lost_reply_of_release_frees_once(stage: &Stage) {
    let (proxy, a, b) = two(stage).await;
    let guard = hold(&a.lock(NAME).unwrap()).await;
    let waiter = wait_in_background(&b.lock(NAME).unwrap());
    assert_eq!(soon("holders", b.lock(NAME).unwrap().holders()).await.unwrap().len(), 1);
    let swallowed = match stage.backend.kind {
        // A release names it by its key alone.
        Kind::Postgres => proxy.swallow_reply(&postgres::key_of(stage, NAME)),
        _ => proxy.swallow_reply(NAME.as_bytes()),
    };
    let released = soon("releasing", guard.release()).await;
    must_have_happened(&swallowed);
    if let Err(error) = released {
        assert_eq!(error.kind(), ErrorKind::Lost, "{error:?}");
    }
    is_the_next_ones(stage, waiter, &a).await;
}

async fn a_lost_reply_of_join_leaves_one_member(stage: &Stage) {
    let (proxy, a, b) = two(stage).await;
    let group = b.group(NAME).unwrap();
    soon("creating", group.create()).await.unwrap();
    let mut watch = soon("watching", group.watch()).await.unwrap();
    let swallowed = proxy.swallow_reply(NAME.as_bytes());
    let membership = soon("joining", a.group(NAME).unwrap().join(&"here")).await.expect("joining");
    must_have_happened(&swallowed);
    assert!(membership.is_member());
    assert_eq!(names(&group).await, ["a"]);
    // A member that came by the connection that broke may have been seen to come and go; the last word is that it came.
    let events = told(&mut watch).await;
    assert!(matches!(&events[..], [GroupEvent::Snapshot(_), .., GroupEvent::Joined(_)]), "{events:?}");
    let came = events.iter().filter(|event| matches!(event, GroupEvent::Joined(_))).count();
    let went = events.iter().filter(|event| matches!(event, GroupEvent::Left(_))).count();
    assert!(came == went + 1 && came <= 2 && events.len() == 1 + came + went, "{events:?}");
    soon("leaving", membership.leave()).await.expect("leaving");
    soon("deleting", group.delete()).await.expect("a group without members can be deleted");
    drop(watch);
    stage.nothing_is_left().await;
}

async fn closing_ends_in_time_though_the_server_has_gone(stage: &Stage) {
    let (a, b) = (stage.connect("a", LONG).await, stage.connect("b", LONG).await);
    let guards = [hold(&a.lock("x").unwrap()).await, hold(&a.lock("y").unwrap()).await];
    let membership = soon("joining", a.group("g").unwrap().join_or_create(&())).await.unwrap();
    let leadership = soon("campaigning", membership.campaign()).await.unwrap();
    let blocked = hold(&b.lock("z").unwrap()).await;
    stage.break_it(Server::kill);

    let begun = Instant::now();
    // Nothing is left there to be given back, which needs no error; nor would one be wrong.
    let _ = within(OPERATION + LATE, "closing", a.close()).await;
    stage.note("closing", begun.elapsed());
    for guard in &guards {
        assert!(!guard.is_held());
        let reason = guard.loss().reason();
        assert!(matches!(reason, Some(LossReason::SessionEnded | LossReason::Closed)), "{reason:?}");
    }
    is_over(&a, &membership, &leadership).await;

    let begun = Instant::now();
    let _ = blocking(|| Ok(b.close_blocking()));
    stage.note("closing without an executor", begun.elapsed());
    assert!(begun.elapsed() <= OPERATION + LATE, "closing took {:?}", begun.elapsed());
    assert!(!blocked.is_held());
}
