//! Who takes a step: what is asleep, what is a task, and who is woken by whom.

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, ThreadId};

use tokio::sync::oneshot;

use super::*;
use crate::engine::heart::{FirstPoll, Heart};

/// A heart that lives until the sender is dropped.
fn heart() -> (Heart, oneshot::Sender<()>) {
    let (life, end) = oneshot::channel();
    let heart = Heart::start(async move { drop(end.await) }, || {});
    (heart.unwrap(), life)
}

/// Begins to wait for the receiver on that heart, asleep.
fn wait_on<T: Send + 'static>(
    heart: &Heart,
    awaited: oneshot::Receiver<T>,
    then: impl FnOnce() -> ThreadId + Send + 'static,
) -> oneshot::Receiver<ThreadId> {
    let begun = heart.begin(async move {
        let _ = awaited.await;
        then()
    });
    let FirstPoll::Waiting(answer, _) = begun else { panic!("it has nothing to wait for") };
    answer
}

/// The same as a task of that heart.
fn wait_as_a_task_on<T: Send + 'static>(
    heart: &Heart,
    mut awaited: oneshot::Receiver<T>,
    then: impl FnOnce() -> ThreadId + Send + 'static,
) -> oneshot::Receiver<ThreadId> {
    let (here, waits) = (thread::current().id(), Arc::new(AtomicBool::new(false)));
    let told = Arc::clone(&waits);
    let (stir, stirred) = oneshot::channel::<()>();
    let mut stirred = Some(stirred);
    let begun = heart.begin(async move {
        poll_fn(|context| {
            stirred.take_if(|stirred| Pin::new(stirred).poll(context).is_ready());
            told.store(thread::current().id() != here, Ordering::Release);
            Pin::new(&mut awaited).poll(context).map(drop)
        })
        .await;
        then()
    });
    thread::spawn(move || stir.send(())).join().unwrap().unwrap();
    while !waits.load(Ordering::Acquire) {
        thread::yield_now();
    }
    let FirstPoll::Waiting(answer, _) = begun else { panic!("it has nothing to wait for") };
    answer
}

#[test]
fn what_is_asleep_goes_on_where_it_is_woken() {
    let ((waiting, _life), (releasing, _other)) = (heart(), heart());
    let (sender, receiver) = oneshot::channel();
    let mut answer = wait_on(&waiting, receiver, || thread::current().id());
    assert_eq!(waiting.asleep(), 1);
    assert!(matches!(releasing.begin(async { sender.send(()) }), FirstPoll::Done(Ok(()))));
    assert_eq!(answer.try_recv(), Ok(thread::current().id()));
    assert_eq!(waiting.asleep(), 0, "what has ended is forgotten");
}

#[test]
fn a_task_that_is_woken_by_a_poll_goes_on_on_the_same_thread() {
    let ((waiting, _life), (releasing, _other)) = (heart(), heart());
    // Now and then its heart is still at its step, and then goes on itself.
    let is_taken_here = || {
        let (sender, receiver) = oneshot::channel();
        let mut answer = wait_as_a_task_on(&waiting, receiver, || thread::current().id());
        assert!(matches!(releasing.begin(async { sender.send(()) }), FirstPoll::Done(Ok(()))));
        answer.try_recv() == Ok(thread::current().id())
    };
    assert!((0..100).any(|_| is_taken_here()), "it is always left to its heart");
}

#[test]
fn a_wake_up_during_the_step_that_puts_to_sleep_is_not_lost() {
    let (waiting, _life) = heart();
    for round in 0..2000 {
        let (sender, receiver) = oneshot::channel();
        let waking = thread::spawn(move || {
            (0..round % 50).for_each(|_| std::hint::spin_loop());
            sender.send(())
        });
        let begun = waiting.begin(async move { receiver.await.map_err(|_| ()) });
        match begun {
            FirstPoll::Done(result) => result.unwrap(),
            FirstPoll::Waiting(answer, _) => answer.blocking_recv().unwrap().unwrap(),
            FirstPoll::Panicked(_) | FirstPoll::Gone => panic!("the heart lives"),
        }
        waking.join().unwrap().unwrap();
    }
    assert_eq!(waiting.asleep(), 0);
}

#[test]
fn a_panic_of_the_step_that_puts_to_sleep_is_an_answer() {
    let (waiting, _life) = heart();
    let mut is_second = false;
    let begun = waiting.begin(poll_fn(move |_| {
        assert!(!std::mem::replace(&mut is_second, true), "as part of a test");
        Poll::<()>::Pending
    }));
    let FirstPoll::Waiting(answer, _) = begun else { panic!("the first poll waits") };
    assert!(answer.blocking_recv().is_err());
    assert_eq!(waiting.asleep(), 0);
}

#[test]
fn a_task_takes_its_steps_on_its_heart() {
    let (waiting, _life) = heart();
    let (sender, receiver) = oneshot::channel();
    let answer = wait_on(&waiting, receiver, || thread::current().id());
    sender.send(()).unwrap();
    assert_ne!(answer.blocking_recv().unwrap(), thread::current().id());
    assert_eq!(waiting.asleep(), 0, "it is a task now");
}

#[test]
fn a_panic_in_an_errand_is_not_the_callers() {
    let ((waiting, _life), (releasing, _other)) = (heart(), heart());
    let (sender, receiver) = oneshot::channel();
    let answer = wait_on(&waiting, receiver, || panic!("as part of a test"));
    assert!(matches!(releasing.begin(async { sender.send(()) }), FirstPoll::Done(Ok(()))));
    assert!(answer.blocking_recv().is_err(), "a task that waits is told that there is no answer");
}

#[test]
fn what_a_heart_has_not_finished_goes_with_it() {
    let (waiting, life) = heart();
    let (sender, receiver) = oneshot::channel::<()>();
    // Its waker is here, and holds nothing of it.
    let answer = wait_on(&waiting, receiver, || thread::current().id());
    drop(life);
    waiting.join();
    assert!(answer.blocking_recv().is_err());
    assert!(sender.is_closed(), "the future is still there");
}
