//! A writer that slept past its lock, and the write that it had begun: with a fencing token it does no harm, without one it undoes another's work.
//!
//!     cargo run --package tooz --example fenced_writes
//!
//! The URL may be that of any backend with `BreakableLocks` (not `file:`, whose locks the kernel keeps).
//!
//! The first writer has the lock, reads the register and falls asleep, as in a long garbage collection or on a suspended virtual machine. Its lock is given to
//! another (here by force; on a server the session timeout does that), which writes. Then the first one wakes up in the middle of its write.
//! A database does the same with one condition more: `UPDATE register SET value = $1, token = $2 WHERE token <= $2`.

use std::sync::Mutex;

use tooz::{FenceGate, FencingToken, LockGuard, LockMode};

/// What the lock protects. It counts how often it was written to, so that a lost write shows.
#[derive(Default)]
struct Register {
    value: Mutex<u32>,
    gate: FenceGate,
}

impl Register {
    fn read(&self) -> u32 {
        *self.value.lock().unwrap()
    }

    /// Takes any write.
    fn write(&self, value: u32) {
        *self.value.lock().unwrap() = value;
    }

    /// Refuses the write of a holder of before.
    fn write_fenced(&self, value: u32, token: FencingToken) -> bool {
        let mut held = self.value.lock().unwrap();
        let admitted = self.gate.admit(token, LockMode::Exclusive);
        if admitted {
            *held = value;
        }
        admitted
    }
}

#[tokio::main]
async fn main() -> tooz::Result<()> {
    let url = std::env::args().nth(1).unwrap_or_else(|| "memory://fenced-writes".to_owned());
    let (unfenced, fenced) = (Register::default(), Register::default());
    let first = tooz::connect(&url, "first").await?;
    let second = tooz::connect(&url, "second").await?;
    let lock = first.lock("examples-register")?;

    let sleeper: LockGuard = lock.acquire().await?;
    let seen = (unfenced.read(), fenced.read());
    // The first one sleeps from here on, in the middle of its write.
    for holder in lock.holders().await? {
        lock.break_lock(&holder).await?;
    }
    let awake = second.lock("examples-register")?.acquire().await?;
    unfenced.write(unfenced.read() + 10);
    assert!(fenced.write_fenced(fenced.read() + 10, awake.fencing_token()), "the holder of now may write");
    awake.release().await?;

    // It wakes up. A look at the lock would tell it the truth, but a write that is on its way looks no more.
    unfenced.write(seen.0 + 1);
    let admitted = fenced.write_fenced(seen.1 + 1, sleeper.fencing_token());
    println!("without a token: the register has {}, the 10 of the second writer are lost", unfenced.read());
    println!(
        "with a token: the register has {}, the late write was {}",
        fenced.read(),
        if admitted { "taken" } else { "refused" }
    );
    assert!(!sleeper.is_held(), "who looks is told");
    assert_eq!((unfenced.read(), fenced.read(), admitted), (1, 10, false));
    first.close().await?;
    second.close().await
}
