//! A guarded resource: two counters in a file, one that refuses stale tokens and one that takes whatever comes.
//!
//! The holder of the lock reads both, works for a while, and writes what was read plus one. A holder that is stopped
//! meanwhile writes late, over what others counted.

use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tooz::{FenceGate, FencingToken, Lock, LockMode};

/// How long a holder works between its reading and its writing.
const WORK: Duration = Duration::from_millis(10);

/// What the file has.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Registers {
    pub(crate) guarded: Register,
    pub(crate) bare: Register,
    /// The highest token that the guarded one has seen.
    highest: Option<u64>,
    /// How often it refused.
    pub(crate) refused: u64,
}

/// If no write was lost, the value is the number of writes.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Register {
    pub(crate) value: u64,
    pub(crate) writes: u64,
}

impl Register {
    fn write(&mut self, value: u64) {
        self.value = value;
        self.writes += 1;
    }
}

impl Registers {
    /// What is in the file just now. Without its lock, which a process may have that was just stopped; `None` in the middle
    /// of a write.
    pub(crate) fn peek(file: &Path) -> Option<Self> {
        serde_json::from_str(&std::fs::read_to_string(file).ok()?).ok()
    }

    /// The resource's side of fencing, as it would be with a gate that outlives its process.
    fn admits(&mut self, token: FencingToken) -> bool {
        let gate = FenceGate::new();
        if let Some(highest) = self.highest {
            gate.admit(FencingToken(highest), LockMode::Exclusive);
        }
        let admitted = gate.admit(token, LockMode::Exclusive);
        if admitted {
            self.highest = Some(token.0);
        } else {
            self.refused += 1;
        }
        admitted
    }
}

/// Counts under the lock for so long.
pub(crate) async fn count(lock: &Lock, file: &Path, time: Duration) -> tooz::Result<()> {
    let end = tokio::time::Instant::now() + time;
    while tokio::time::Instant::now() < end {
        let guard = match lock.acquire_within(Duration::from_millis(500)).await {
            Ok(Some(guard)) => guard,
            Ok(None) => continue,
            // A session that was lost while it was stopped: the next one is on its way.
            Err(error) if error.is_retryable() => {
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            }
            Err(error) => return Err(error),
        };
        let token = guard.fencing_token();
        // As most programs do: look once, and then work.
        if guard.is_held() {
            let read = change(file, |registers| {
                let guarded = registers.admits(token).then_some(registers.guarded.value);
                (guarded, registers.bare.value)
            });
            tokio::time::sleep(WORK).await;
            change(file, |registers| {
                if let Some(value) = read.0
                    && registers.admits(token)
                {
                    registers.guarded.write(value + 1);
                }
                registers.bare.write(read.1 + 1);
            });
        }
        // One that was lost answers so, and that is all that there is to it.
        let _ = guard.release().await;
    }
    Ok(())
}

/// Reads, changes and writes the file, alone.
fn change<T>(path: &Path, deed: impl FnOnce(&mut Registers) -> T) -> T {
    let open = File::options().read(true).write(true).create(true).truncate(false).open(path);
    let mut file = open.expect("the file can be opened");
    file.lock().expect("the file can be locked");
    let mut text = String::new();
    file.read_to_string(&mut text).expect("the file can be read");
    let mut registers = match text.as_str() {
        "" => Registers::default(),
        text => serde_json::from_str(text).expect("only this module writes it"),
    };
    let answer = deed(&mut registers);
    let text = serde_json::to_string(&registers).expect("numbers are JSON");
    file.rewind().and_then(|()| file.set_len(0)).expect("the file can be cut");
    file.write_all(text.as_bytes()).expect("the file can be written");
    answer
}
