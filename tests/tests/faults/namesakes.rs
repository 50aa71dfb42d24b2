//! Two that have one name are still two: neither frees what is the other's, nor inherits it.

use std::time::Instant;

use tokio::time::sleep;
use tooz::{Coordinator, ErrorKind};

use crate::backend::Sessions;
use crate::stage::{
    LATE, LONG, MOMENT, SHORT, Stage, attempt, cases, eventually, hold, names, soon, wait_in_background,
};
use crate::worker::{Command, Other};

cases! { "namesakes", Server, alone: false;
    a_namesake_in_another_process_frees_nothing_and_inherits_nothing,
    a_namesake_in_the_same_process_frees_nothing_and_inherits_nothing,
}

async fn a_namesake_in_another_process_frees_nothing_and_inherits_nothing(stage: &Stage) {
    let witness = stage.connect("witness", LONG).await;
    let mut other = Other::start(stage, "twin", SHORT).await;
    let token = other.hold("x").await;
    other.ask(&Command::Join { group: "g".into() }).await;

    // It comes, asks, works with something else, and goes, in every way.
    let twin = stage.connect("twin", SHORT).await;
    stands_aside(stage, &twin).await;
    soon("closing", twin.close()).await.expect("closing");
    drop(stage.connect("twin", SHORT).await.lock("x").unwrap().try_acquire().await);
    is_untouched(&witness, token).await;

    // A process of that name that starts right after the other's death is not its heir.
    let twin = stage.connect("twin", SHORT).await;
    let killed = Instant::now();
    other.kill().await;
    if stage.backend.sessions != Sessions::Connections {
        assert!(attempt(&twin.lock("x").unwrap()).await.is_none(), "the namesake inherited the lock");
    }
    let (guard, granted) = soon("the dead one's lock", wait_in_background(&twin.lock("x").unwrap())).await.unwrap();
    assert!(granted - killed <= stage.inherited_after(SHORT) + LATE, "it took {:?}", granted - killed);
    assert!(guard.fencing_token().0 > token, "the token did not grow");
    eventually(SHORT + LATE, "the dead one is no member", async || names(&twin.group("g").unwrap()).await.is_empty())
        .await;
    drop(soon("joining", twin.group("g").unwrap().join(&())).await.expect("joining under the dead one's name"));
}

async fn a_namesake_in_the_same_process_frees_nothing_and_inherits_nothing(stage: &Stage) {
    let witness = stage.connect("witness", LONG).await;
    let first = stage.connect("twin", LONG).await;
    let guard = hold(&first.lock("x").unwrap()).await;
    let membership = soon("joining", first.group("g").unwrap().join_or_create(&1)).await.unwrap();
    let twin = stage.connect("twin", LONG).await;
    stands_aside(stage, &twin).await;
    soon("closing", twin.close()).await.expect("closing");
    is_untouched(&witness, guard.fencing_token().0).await;
    assert!(guard.is_held() && membership.is_member());

    // The other way round: a member that goes takes nothing along of the one that stays.
    let twin = stage.connect("twin", LONG).await;
    let own = hold(&twin.lock("own").unwrap()).await;
    soon("closing", first.close()).await.expect("closing");
    sleep(MOMENT).await;
    assert!(own.is_held() && attempt(&witness.lock("own").unwrap()).await.is_none());
    assert!(!guard.is_held() && !membership.is_member());
    soon("releasing", hold(&witness.lock("x").unwrap()).await.release()).await.expect("releasing");
}

/// All that a namesake of a holder and member may try, and what it must be told.
async fn stands_aside(stage: &Stage, twin: &Coordinator) {
    let lock = twin.lock("x").unwrap();
    assert!(attempt(&lock).await.is_none(), "the namesake got the lock");
    let mut waiting = Box::pin(lock.acquire());
    tokio::select! {
        _ = &mut waiting => panic!("the namesake got the lock"),
        () = sleep(MOMENT) => {}
    }
    drop(waiting);
    let error = soon("joining", twin.group("g").unwrap().join(&2)).await.expect_err("the namesake is a member too");
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    let after = error.retry_after().expect("it is told when to try again");
    let latest = if stage.backend.sessions == Sessions::Doubled { stage.ended_after(LONG) } else { LONG };
    assert!(after <= latest, "{after:?} is longer than the other's session can live");
    soon("releasing", hold(&twin.lock("something else").unwrap()).await.release()).await.expect("releasing");
}

async fn is_untouched(witness: &Coordinator, token: u64) {
    sleep(MOMENT).await;
    let lock = witness.lock("x").unwrap();
    let holders = soon("holders", lock.holders()).await.unwrap();
    assert_eq!(holders.iter().map(|holder| holder.token.0).collect::<Vec<_>>(), [token], "{holders:?}");
    assert!(attempt(&lock).await.is_none(), "the namesake freed the lock");
    let members = soon("listing", witness.group("g").unwrap().members()).await.unwrap();
    assert_eq!(members.len(), 1, "{members:?}");
    assert_eq!(members[0].capabilities.get::<i32>().unwrap(), 1, "the refused join changed the member");
}
