//! What a session and its backend agree upon is asked of each session anew.

use std::time::Duration;

use tooz_core::{Characteristic, Characteristics, ErrorKind};

use crate::driver::{Method, Mischief, TOY};
use crate::stage::{SOON, Toy, comes_true, soon, trial};

#[test]
fn what_is_required_is_required_of_the_next_session_too() {
    trial(async || {
        let toy = Toy::named("required");
        let wanted = Characteristics::of(&[Characteristic::DurableFencing]);
        let options = toy.options("toy", "one").driver(&TOY).require(wanted);
        let coordinator = soon("connecting", options.connect()).await.unwrap();
        let lock = coordinator.lock("x").unwrap();
        soon("a lock", lock.acquire()).await.unwrap().release().await.unwrap();
        toy.script.always(Method::Terms, Mischief::Lacks(Characteristic::DurableFencing));
        toy.expire("one");
        let error = soon("a try", lock.try_acquire()).await.expect_err("the backend lacks what is required");
        assert_eq!(error.kind(), ErrorKind::Config, "{error:?}");
        assert!(error.to_string().contains("DurableFencing"), "{error}");
        toy.script.heal();
        comes_true(SOON, "the backend has it again", async || match lock.try_acquire().await {
            Ok(Some(_)) => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
    });
}

#[test]
fn the_longest_timeouts_there_are_mean_for_ever() {
    trial(async || {
        let toy = Toy::named("for-ever");
        let options = toy.options("toy", "one").driver(&TOY);
        let options = options.connect_timeout(Duration::MAX).operation_timeout(Duration::MAX);
        let coordinator =
            soon("connecting", tokio::spawn(options.connect())).await.expect("it does not panic").unwrap();
        let lock = coordinator.lock("x").unwrap();
        let guard = soon("acquire()", lock.acquire_within(Duration::MAX)).await.unwrap().expect("it is free");
        assert!(soon("a try", lock.try_acquire()).await.unwrap().is_none());
        let membership = soon("a join", coordinator.group("g").unwrap().join_or_create(&1)).await.unwrap();
        soon("an update", membership.update(&2)).await.unwrap();
        soon("leave()", membership.leave()).await.unwrap();
        soon("release()", guard.release()).await.unwrap();
        soon("close()", coordinator.close()).await.unwrap();
    });
}

#[test]
fn what_another_holds_expires_in_no_time() {
    trial(async || {
        let toy = Toy::named("expires");
        let (coordinator, rival) = (toy.connect("one").await, toy.observer("rival").await);
        let guard = soon("a lock", coordinator.lock("x").unwrap().acquire()).await.unwrap();
        assert!(guard.expires_in().is_some_and(|left| left > Duration::from_secs(1)));
        let holders = rival.lock("x").unwrap().holders().await.unwrap();
        rival.lock("x").unwrap().break_lock(&holders[0]).await.unwrap();
        let _others = soon("the rival's turn", rival.lock("x").unwrap().acquire()).await.unwrap();
        assert!(!guard.is_held());
        assert_eq!(guard.expires_in(), Some(Duration::ZERO));
    });
}
