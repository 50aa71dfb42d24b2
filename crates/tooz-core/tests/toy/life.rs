//! The life of a session whose heartbeats fail, hang or come late.

use std::time::Duration;

use tooz_core::{ErrorKind, SessionEvent};

use crate::driver::{Method, Mischief};
use crate::stage::{Everything, SESSION, SOON, Toy, soon, trial, within};

#[test]
fn beats_that_fail_for_less_than_the_timeout_lose_nothing() {
    trial(async || {
        for kind in [ErrorKind::Unauthorized, ErrorKind::Config, ErrorKind::Backend, ErrorKind::Unavailable] {
            let toy = Toy::named(&format!("beats-{kind}"));
            let mut all = Everything::stand(&toy).await;
            toy.script.always(Method::Beat, Mischief::Fails(kind));
            for is_suspended in [true, false] {
                let told = async {
                    loop {
                        match all.events.next().await {
                            Some(SessionEvent::Suspended(error)) if is_suspended => {
                                return assert_eq!(error.kind(), kind);
                            }
                            Some(SessionEvent::Resumed) if !is_suspended => return,
                            // The trouble may be told as well.
                            Some(SessionEvent::Troubled(_) | SessionEvent::Recovered) => {}
                            other => panic!("{kind}: {other:?}, suspended expected: {is_suspended}"),
                        }
                    }
                };
                within(SESSION, "the event", told).await;
                toy.script.heal();
            }
            assert!(all.guard.is_held() && all.leadership.is_leader());
            all.is_right(SOON).await;
            soon("close()", all.coordinator.close()).await.unwrap();
        }
    });
}

#[test]
fn beats_that_hang_lose_the_session_in_time_and_all_is_kept_up() {
    trial(async || {
        let toy = Toy::named("beats-hang");
        let mut all = Everything::stand(&toy).await;
        toy.script.always(Method::Beat, Mischief::Hangs);
        let remaining = all.guard.remaining().expect("there is a deadline");
        within(remaining + Duration::from_secs(1), "the loss", all.guard.loss().wait()).await;
        toy.script.heal();
        all.is_right(SOON).await;
        all.ends_with_close().await;
    });
}

#[test]
fn a_wish_for_a_session_that_was_refused_is_not_kept_for_the_next_connection() {
    trial(async || {
        let toy = Toy::named("refused-wish");
        let coordinator = toy.connect("a").await;
        toy.script.always(Method::Open, Mischief::FailsLate(Duration::from_millis(50), ErrorKind::Config));
        // The second is asked where there is no connection any more.
        for _ in 0..2 {
            let refused = soon("try_acquire()", coordinator.lock("x").unwrap().try_acquire()).await.unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Config);
        }
        let opens = toy.script.calls(Method::Open);
        // A session that no caller wants would be refused beneath it, and its end would cut off what is asked here.
        toy.script.always(Method::Groups, Mischief::AnswersLate(Duration::from_millis(100)));
        soon("groups()", coordinator.groups()).await.unwrap();
        assert_eq!(toy.script.calls(Method::Open), opens, "no caller wants a session");
    });
}
