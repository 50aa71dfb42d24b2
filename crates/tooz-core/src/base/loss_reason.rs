//! Why something is not held any more.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::base::error::{Error, ErrorKind};

/// Why something is not held any more.
///
/// It is an error, and becomes an [`Error`] by `?`: of the kind [`Closed`](ErrorKind::Closed) after the coordinator's end,
/// [`NotMember`](ErrorKind::NotMember) where a membership is over for ever, else [`Lost`](ErrorKind::Lost).
///
/// ```
/// # async fn write_the_report() {}
/// async fn nightly(lock: &tooz_core::Lock) -> tooz_core::Result<()> {
///     let guard = lock.acquire().await?;
///     guard.while_held(write_the_report()).await?;
///     guard.release().await
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum LossReason {
    /// The deadline passed without a heartbeat that counts.
    Expired,
    /// The backend ended the session, or the connection on which it lives.
    SessionEnded,
    /// This grant was taken away: broken by force, evicted, its file deleted.
    Broken,
    /// Another process took the membership over.
    TakenOver,
    /// The group is gone.
    GroupDeleted,
    /// The membership that this depends on has ended.
    NotMember,
    /// Not a loss: the holder gave it back.
    Released,
    /// The driver panicked in the life of the session, which is over by that.
    DriverPanicked,
    /// The coordinator was closed.
    Closed,
    /// This is a forked child; what the parent holds is the parent's.
    Forked,
}

impl LossReason {
    /// The name as it stands in JSON and in the labels of metrics.
    pub const fn name(self) -> &'static str {
        match self {
            LossReason::Expired => "expired",
            LossReason::SessionEnded => "session_ended",
            LossReason::Broken => "broken",
            LossReason::TakenOver => "taken_over",
            LossReason::GroupDeleted => "group_deleted",
            LossReason::NotMember => "not_member",
            LossReason::Released => "released",
            LossReason::DriverPanicked => "driver_panicked",
            LossReason::Closed => "closed",
            LossReason::Forked => "forked",
        }
    }
}

impl fmt::Display for LossReason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            LossReason::Expired => "the deadline passed without a heartbeat",
            LossReason::SessionEnded => "the backend ended the session",
            LossReason::Broken => "the grant was taken away",
            LossReason::TakenOver => "another process took the membership over",
            LossReason::GroupDeleted => "the group was deleted",
            LossReason::NotMember => "the membership has ended",
            LossReason::Released => "it was given back",
            LossReason::DriverPanicked => "the driver panicked",
            LossReason::Closed => "the coordinator was closed",
            LossReason::Forked => "this is a forked process",
        })
    }
}

impl std::error::Error for LossReason {}

impl From<LossReason> for Error {
    fn from(reason: LossReason) -> Self {
        let kind = match reason {
            LossReason::Closed => ErrorKind::Closed,
            LossReason::TakenOver | LossReason::GroupDeleted | LossReason::NotMember => ErrorKind::NotMember,
            _ => ErrorKind::Lost,
        };
        Error::new(kind, reason.to_string()).with_source(reason)
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    #[test]
    fn a_loss_is_an_error_of_its_kind_and_can_be_stored() {
        for (reason, kind) in [
            (LossReason::Expired, ErrorKind::Lost),
            (LossReason::Broken, ErrorKind::Lost),
            (LossReason::TakenOver, ErrorKind::NotMember),
            (LossReason::Closed, ErrorKind::Closed),
        ] {
            let error = Error::from(reason);
            assert_eq!((error.kind(), error.to_string()), (kind, reason.to_string()));
            assert!(error.source().is_some_and(|source| source.downcast_ref() == Some(&reason)));
            let stored = serde_json::to_string(&reason).unwrap();
            assert_eq!(stored, format!("\"{}\"", reason.name()));
            assert_eq!(serde_json::from_str::<LossReason>(&stored).unwrap(), reason);
        }
    }
}
