//! What threads share, under `shuttle`: a scheduler that tries thousands of orders in which threads may take their steps.
//!
//! `RUSTFLAGS="--cfg shuttle" cargo test -p tooz-core --lib interleavings` runs them; `cargo xtask test` does so. A failure names the schedule
//! that leads to it. A thread that waits for ever is a failure too.

use std::sync::Arc;
use std::time::Duration;

use shuttle::future::block_on;
use shuttle::thread;

use crate::base::clock::Moment;
use crate::base::event_queue::{Delivery, event_queue};
use crate::base::latch::Latch;
use crate::base::loss_reason::LossReason;
use crate::driver::wanted::{WaitProgress, Wanted};
use crate::engine::deadline::{Deadline, Judgement};

/// Orders of steps for each test: half of them at random, half with few changes of threads at the worst places.
const ORDERS: usize = 4000;

fn in_all_orders(test: impl Fn() + Send + Sync + Clone + 'static) {
    shuttle::check_random(test.clone(), ORDERS / 2);
    shuttle::check_pct(test, ORDERS / 2, 3);
}

#[test]
fn a_latch_has_one_reason_and_tells_it_to_each_that_waits() {
    in_all_orders(|| {
        let latch = Arc::new(Latch::default());
        let waits = || {
            let latch = Arc::clone(&latch);
            thread::spawn(move || block_on(latch.wait()))
        };
        let sets = |reason| {
            let latch = Arc::clone(&latch);
            thread::spawn(move || latch.set(reason).then_some(reason))
        };
        let waiting = [waits(), waits()];
        let setting = [sets(LossReason::Broken), sets(LossReason::SessionEnded)];
        let first: Vec<_> = setting.into_iter().filter_map(|setter| setter.join().unwrap()).collect();
        assert_eq!(first.len(), 1, "one reason was the first");
        for waiter in waiting {
            assert_eq!(waiter.join().unwrap(), first[0]);
        }
        assert_eq!(latch.get(), Some(first[0]));
    });
}

#[test]
fn a_request_that_is_unwanted_hears_of_it() {
    in_all_orders(|| {
        let (wish, wanted) = Wanted::channel();
        let driver = {
            let wanted = wanted.clone();
            thread::spawn(move || block_on(wanted.unwanted()))
        };
        // Unwanted, wanted again, and at last gone: the driver may miss the first, but not the last.
        for is_wanted in [false, true] {
            if let Some(untold) = wish.set(is_wanted) {
                untold.tell();
            }
        }
        drop(wish);
        driver.join().unwrap();
        assert!(!wanted.is_wanted());
    });
}

#[test]
fn the_last_word_of_a_driver_is_heard() {
    in_all_orders(|| {
        let (wish, wanted) = Wanted::channel();
        let mut seen = wanted.begin_attempt();
        let driver = {
            let wanted = wanted.clone();
            thread::spawn(move || {
                wanted.trouble(&crate::base::error::Error::closed());
                wanted.queued();
            })
        };
        let mut words = 0;
        while !matches!(block_on(wanted.next_word(&mut seen)), WaitProgress::Queued) {
            words += 1;
        }
        driver.join().unwrap();
        assert!(words <= 1 && wish.is_queued() && wish.has_stood());
    });
}

#[test]
fn a_reader_finds_each_item_once_in_order_and_the_end() {
    in_all_orders(|| {
        let (feeder, mut reader) = event_queue();
        let feeding = thread::spawn(move || {
            for item in 0..3 {
                feeder.push(item);
            }
        });
        let mut found = Vec::new();
        while let Some(next) = block_on(std::future::poll_fn(|context| reader.poll_next(context))) {
            match next {
                Delivery::Item(item) => found.push(item),
                Delivery::Lagged => panic!("three items are not too many"),
            }
        }
        feeding.join().unwrap();
        assert_eq!(found, [0, 1, 2]);
    });
}

#[test]
fn a_feeder_hears_that_its_reader_has_gone() {
    in_all_orders(|| {
        let (feeder, reader) = event_queue::<u8>();
        let feeding = thread::spawn(move || {
            block_on(feeder.closed());
            assert!(feeder.is_closed());
        });
        thread::spawn(move || drop(reader)).join().unwrap();
        feeding.join().unwrap();
    });
}

const TIMEOUT: Duration = Duration::from_secs(10);
const NOW: Moment = Moment::from_nanos(1_000);

#[test]
fn no_heartbeat_brings_back_what_is_lost() {
    in_all_orders(|| {
        let deadline = Arc::new(Deadline::default());
        assert!(deadline.credit(NOW, TIMEOUT, Duration::ZERO, || NOW));
        let beats = {
            let deadline = Arc::clone(&deadline);
            thread::spawn(move || {
                for later in 1..3 {
                    deadline.credit(NOW + Duration::from_secs(later), TIMEOUT, Duration::ZERO, || NOW);
                }
            })
        };
        let told = {
            let deadline = Arc::clone(&deadline);
            thread::spawn(move || {
                let reason = block_on(deadline.loss.wait());
                assert_eq!(deadline.judge(|| NOW), Judgement::Lost(reason), "what is told of a loss finds it lost");
            })
        };
        let loses = {
            let deadline = Arc::clone(&deadline);
            thread::spawn(move || {
                deadline.lose(LossReason::SessionEnded);
                assert!(matches!(deadline.judge(|| NOW), Judgement::Lost(_)));
            })
        };
        for thread in [beats, told, loses] {
            thread.join().unwrap();
        }
        assert!(matches!(deadline.judge(|| NOW), Judgement::Lost(LossReason::SessionEnded)));
    });
}

#[test]
fn a_heartbeat_after_the_deadline_counts_for_nothing() {
    in_all_orders(|| {
        let deadline = Arc::new(Deadline::default());
        assert!(deadline.credit(NOW, TIMEOUT, Duration::ZERO, || NOW));
        let late = NOW + TIMEOUT;
        let beats = {
            let deadline = Arc::clone(&deadline);
            thread::spawn(move || deadline.credit(NOW, TIMEOUT * 3, Duration::ZERO, move || late))
        };
        let judges = {
            let deadline = Arc::clone(&deadline);
            thread::spawn(move || deadline.judge(|| late))
        };
        assert!(!beats.join().unwrap(), "its reply came when the deadline had passed");
        assert_eq!(judges.join().unwrap(), Judgement::Passed);
    });
}
