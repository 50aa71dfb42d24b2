//! Many guards of one lock cost no more each than a few do.

use std::time::{Duration, Instant};

use crate::stage::{Toy, soon, trial_within};

/// How long it takes to get so many shared guards of one lock, and to give them back in any order: the shortest of some attempts.
async fn coming_and_going(toy: &Toy, count: usize) -> Duration {
    let coordinator = toy.connect("one").await;
    let lock = coordinator.lock("x").unwrap().shared();
    let mut shortest = Duration::MAX;
    for _ in 0..3 {
        let begun = Instant::now();
        let mut guards = Vec::new();
        for _ in 0..count {
            guards.push(soon("a shared lock", lock.acquire()).await.unwrap());
        }
        fastrand::shuffle(&mut guards);
        for guard in guards {
            soon("a release", guard.release()).await.unwrap();
        }
        shortest = shortest.min(begun.elapsed());
    }
    coordinator.close().await.unwrap();
    shortest
}

#[test]
fn many_shared_guards_of_one_lock_are_not_quadratic() {
    trial_within(Duration::from_mins(2), async || {
        let toy = Toy::named("crowd");
        let few = coming_and_going(&toy, 2000).await;
        let many = coming_and_going(&toy, 8000).await;
        // Four times as many: four times as long if each costs the same, sixteen times if each costs as much as all there are.
        assert!(many < few * 9, "2,000 take {few:?}, 8,000 take {many:?}");
    });
}
