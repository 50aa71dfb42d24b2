//! What only a ZooKeeper ensemble does: a session that moves to another server, and one that expires while its server is cut off.

use std::time::Duration;

use tokio::time::sleep;
use tooz::{ErrorKind, GroupEvent, LossReason, SessionEvent};
use tooz_testbed::Server;

use crate::raw::{self, Raw};
use crate::stage::{
    LATE, LONG, PATIENCE, SHORT, Stage, blocking, cases, eventually, hold, names, soon, wait_in_background,
};
use crate::worker::{Command, Other};

cases! { "ensemble", Cluster, alone: true;
    a_session_whose_server_dies_moves_on_and_loses_nothing,
    an_expired_session_is_told_and_its_member_is_back_by_itself,
    a_holder_that_stood_still_and_then_loses_its_server_knows_its_loss_first,
}

/// The one of these servers that has the session of that member.
fn whose_is(member: &str, servers: &[&Server]) -> u32 {
    let mut raw = Raw::connect(servers[0].address()).expect("the server takes one more session");
    let branch = "/tooz/mail";
    let sessions = raw.children(branch).expect("the sessions can be listed");
    let own = sessions.into_iter().find(|session| {
        let mail = raw.data(&format!("{branch}/{session}")).expect("a mailbox can be read").unwrap_or_default();
        String::from_utf8_lossy(&mail).contains(&format!("{member:?}"))
    });
    raw.close().expect("the session can be closed");
    let own = format!("sid=0x{},", own.expect("the member has a session").trim_start_matches('0'));
    let has_it = |server: &&&Server| raw::word(server.address(), "cons").contains(&own);
    servers.iter().find(has_it).expect("the session is at one of the servers").pid()
}

async fn a_session_whose_server_dies_moves_on_and_loses_nothing(stage: &Stage) {
    let lasting = LONG * 2;
    let (a, b) = (stage.connect("a", lasting).await, stage.connect("b", lasting).await);
    let membership = soon("joining", a.group("g").unwrap().join_or_create(&"here")).await.unwrap();
    let guard = hold(&a.lock("x").unwrap()).await;
    let waiter = wait_in_background(&b.lock("x").unwrap());
    let mut events = a.events();
    // Twice, so that it moves from where it has moved to.
    for _ in 0..2 {
        let all: Vec<_> = stage.cluster().nodes().iter().collect();
        let pid = blocking(|| Ok(whose_is("a", &all)));
        let (dying, others): (Vec<_>, Vec<_>) = all.into_iter().partition(|node| node.pid() == pid);
        blocking(|| dying[0].kill());
        sleep(lasting + LATE).await;
        assert!(guard.is_held(), "the lock was lost: {:?}", guard.loss().reason());
        assert!(membership.is_member(), "the membership was lost: {:?}", membership.loss().reason());
        assert!(!waiter.is_finished(), "the lock was given to two");
        blocking(|| Ok(whose_is("a", &others)));
        blocking(|| dying[0].restart());
        blocking(|| stage.cluster().wait_until_whole());
    }
    assert_eq!(names(&b.group("g").unwrap()).await, ["a"]);
    soon("releasing", guard.release()).await.expect("releasing");
    soon("releasing", soon("the waiter's turn", waiter).await.unwrap().0.release()).await.expect("releasing");
    soon("leaving", membership.leave()).await.expect("leaving");
    soon("closing", a.close()).await.expect("closing");
    while let Some(event) = events.next().await {
        assert!(matches!(event, SessionEvent::Suspended(_) | SessionEvent::Resumed), "{event:?} was told");
    }
}

async fn an_expired_session_is_told_and_its_member_is_back_by_itself(stage: &Stage) {
    let cluster = stage.cluster();
    let a = stage.connect_to(&stage.url_of(0), "a", SHORT).await;
    let b = stage.connect_to(&stage.url_of(1), "b", LONG * 2).await;
    let membership = soon("joining", a.group("g").unwrap().join_or_create(&"first")).await.unwrap();
    soon("updating", membership.update(&"latest")).await.unwrap();
    let guard = hold(&a.lock("x").unwrap()).await;
    let group = b.group("g").unwrap();
    let mut watch = soon("watching", group.watch()).await.unwrap();
    assert!(
        matches!(soon("the snapshot", watch.next()).await, Some(GroupEvent::Snapshot(members)) if members.len() == 1)
    );
    let waiter = wait_in_background(&b.lock("x").unwrap());
    let (mut events, membership_loss) = (a.events(), membership.loss());

    cluster.partition_wholly(0);
    assert_eq!(soon("the loss", guard.loss().wait()).await, LossReason::Expired);
    assert_eq!(soon("the membership's loss", membership_loss.wait()).await, LossReason::Expired);
    let (next, _) = soon("the majority's grant", waiter).await.unwrap();
    assert!(next.fencing_token() > guard.fencing_token(), "the token did not grow");
    assert!(matches!(soon("the end of the member", watch.next()).await, Some(GroupEvent::Left(_))));
    assert!(names(&group).await.is_empty(), "who has expired is still listed");

    cluster.heal();
    match soon("the return of the member", watch.next()).await {
        Some(GroupEvent::Joined(entry)) => {
            assert_eq!((entry.member.as_str(), entry.capabilities.get().unwrap()), ("a", "latest".to_owned()));
        }
        other => panic!("{other:?} in place of its return"),
    }
    eventually(PATIENCE, "the membership is known to be back", async || membership.is_member()).await;
    assert!(membership_loss.is_lost() && !guard.is_held(), "what was lost came back");
    assert_eq!(guard.release().await.unwrap_err().kind(), ErrorKind::Lost);
    assert!(next.is_held(), "the release of what was lost freed the next one's");
    let mut told = Vec::new();
    while told.last() != Some(&SessionEvent::Reopened) {
        told.push(soon("Reopened", events.next()).await.expect("the events go on"));
    }
    assert!(told.contains(&SessionEvent::Lost(LossReason::Expired)), "{told:?}");
    blocking(|| cluster.wait_until_whole());
}

/// The leader hears of a session's life from the session's server, once in half a tick. The first heartbeat after a standstill is
/// answered, and then that server dies before it has told the leader of it.
async fn a_holder_that_stood_still_and_then_loses_its_server_knows_its_loss_first(stage: &Stage) {
    let cluster = stage.cluster();
    let leader = blocking(|| cluster.leader());
    let (follower, other) = ((leader + 1) % 3, (leader + 2) % 3);
    let there = stage.connect_to(&stage.url_of(other), "there", LONG * 2).await;
    let waiting = there.lock("x").unwrap();
    let membership = soon("joining", there.group("g").unwrap().join_or_create(&0)).await.unwrap();
    for round in 0..3 {
        let mut holder = Other::start_at(&stage.url_of(follower), "holder", LONG).await;
        holder.hold("x").await;
        holder.ask(&Command::Watch { group: "g".into() }).await;
        let waiter = wait_in_background(&waiting);
        // It has beaten since, and the next heartbeat falls into its standstill.
        sleep(LONG / 3).await;
        holder.stop();
        // By this news the connection is not taken for dead when it goes on.
        soon("updating", membership.update(&round)).await.expect("updating");
        sleep(LONG / 3 + Duration::from_millis(200)).await;
        holder.resume();
        sleep(Duration::from_millis(40)).await;
        blocking(|| cluster.nodes()[follower].kill());
        let (guard, _) = soon("the turn of the waiter", waiter).await.unwrap();
        let held = holder.ask(&Command::Look).await.held;
        assert_eq!(held, Some(false), "it was held when another had it");
        soon("releasing", guard.release()).await.expect("releasing");
        holder.kill().await;
        blocking(|| cluster.nodes()[follower].restart());
        blocking(|| cluster.wait_until_whole());
    }
}
