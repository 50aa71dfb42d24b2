//! Timers, panics and the end of a heart.

use std::sync::atomic::AtomicBool;
use std::task::Wake;

use super::*;

struct WakeFlag(AtomicBool);

impl Wake for WakeFlag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn a_timer_ends_with_its_heart_on_a_thread_without_a_runtime() {
    let (life, end) = oneshot::channel::<()>();
    let heart = Heart::start(
        async {
            let _ = end.await;
        },
        || {},
    );
    let heart = heart.unwrap();
    let mut timer = heart.timer(Duration::from_hours(1));
    let told = Arc::new(WakeFlag(AtomicBool::new(false)));
    let waker = Waker::from(Arc::clone(&told));
    let mut context = Context::from_waker(&waker);
    assert!(timer.poll(&mut context).is_pending());
    drop(life);
    heart.join();
    assert!(told.0.load(Ordering::SeqCst), "a task that waits is woken");
    assert!(timer.poll(&mut context).is_ready());
    assert!(heart.timer(Duration::from_hours(1)).poll(&mut context).is_ready(), "a new one has no heart");
}

#[tokio::test]
async fn a_panic_is_the_answer_to_its_caller_and_the_heart_beats_on() {
    let (life, end) = oneshot::channel::<()>();
    let heart = Heart::start(async move { drop(end.await) }, || {}).unwrap();
    let kind = |result: Result<()>| result.unwrap_err().kind();
    assert_eq!(kind(heart.begin(async { panic!("at the first poll, in a test") }).answer().await), ErrorKind::Backend);
    let later = async {
        tokio::task::yield_now().await;
        panic!("later, in a test")
    };
    assert_eq!(kind(heart.begin(later).answer().await), ErrorKind::Backend);
    heart.begin(async { Ok(()) }).answer().await.unwrap();
    drop(life);
    heart.join();
    assert_eq!(kind(heart.begin(async { Ok(()) }).answer().await), ErrorKind::Closed);
}

#[test]
fn a_waiter_for_the_end_is_told_however_it_comes() {
    let told = Arc::new(AtomicBool::new(false));
    let tell = Arc::clone(&told);
    let heart =
        Heart::start(async { panic!("as part of a test") }, move || tell.store(true, Ordering::SeqCst)).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                heart.join();
                assert!(told.load(Ordering::SeqCst));
            });
        }
    });
}
