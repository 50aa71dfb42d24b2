//! The names that the doctor tries things out with, and giving them back clean.

use std::time::{Duration, Instant};

use tooz::{Coordinator, ErrorKind, LockGuard};

use super::report::TrialFailure;

/// So many doctors may be at work at once in one namespace. Names are used again and again: on a backend that never deletes the
/// file or counter of a lock, a name of its own for each run would pile them up.
const PLACES: usize = 16;

/// How long the members of a group that is no longer wanted may take to leave it.
const LEAVING: Duration = Duration::from_secs(2);

/// The names for trying things out, which no other doctor uses meanwhile.
pub(super) struct Scratch {
    name: String,
    guard: LockGuard,
}

impl Scratch {
    /// Takes the first place that is free. The lock of that place is the first thing that opens the session.
    pub(super) async fn claim(coordinator: &Coordinator) -> Result<Self, TrialFailure> {
        for place in 0..PLACES {
            let name = format!("tooz-doctor-{place}");
            if let Some(guard) = coordinator.lock(&name)?.try_acquire().await? {
                let scratch = Scratch { name, guard };
                // One that was killed may have left its group.
                scratch.delete_group(coordinator).await?;
                return Ok(scratch);
            }
        }
        Err(TrialFailure {
            what: format!(
                "the locks tooz-doctor-0 to tooz-doctor-{} are all held, so nothing could be tried",
                PLACES - 1
            ),
            mend: "try again when the doctors that hold them have ended; `tooz holders tooz-doctor-0` shows one"
                .to_owned(),
        })
    }

    /// The lock to try things out with.
    pub(super) fn lock(&self) -> String {
        format!("{}-lock", self.name)
    }

    /// The group to try things out with.
    pub(super) fn group(&self) -> String {
        self.name.clone()
    }

    /// Deletes the group, if it is there, and lets others have the place.
    pub(super) async fn give_up(self, coordinator: &Coordinator) -> Result<(), TrialFailure> {
        let deleted = self.delete_group(coordinator).await;
        self.guard.release().await?;
        deleted
    }

    async fn delete_group(&self, coordinator: &Coordinator) -> Result<(), TrialFailure> {
        let group = coordinator.group(&self.name)?;
        let begin = Instant::now();
        loop {
            match group.delete().await {
                Ok(()) => return Ok(()),
                Err(error) => match error.kind() {
                    ErrorKind::NotFound | ErrorKind::Unsupported => return Ok(()),
                    // Its members are leaving in the background, or die with their session.
                    ErrorKind::NotEmpty if begin.elapsed() < LEAVING => {
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                    _ => return Err(error.into()),
                },
            }
        }
    }
}
