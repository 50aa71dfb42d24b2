//! A group that is not there: what is said of it, and waiting for it where that is wanted.

use std::time::{Duration, Instant};

use tokio::time::sleep;
use tooz::{Error, ErrorKind, GroupId};

use crate::args::WaitForGroup;
use crate::failure::CommandFailure;
use crate::speech::{self, waiting};

/// How often is looked: no backend tells of a group that comes to be.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// An error of something that was asked of a group. To look at one that is missing, it need not be created.
pub(super) fn of(group: &str) -> impl Fn(Error) -> CommandFailure {
    move |error| match error.kind() {
        ErrorKind::NotFound => {
            CommandFailure::missing(format!("there is no group {group:?}; tooz groups lists those that there are"))
        }
        _ => error.into(),
    }
}

/// Asks something of a group, again and again while that is missing, if it is to be waited for.
pub(super) async fn wait_for<T>(
    group: &GroupId,
    wait: WaitForGroup,
    ask: impl AsyncFn() -> tooz::Result<T>,
) -> Result<T, CommandFailure> {
    let (begin, patience) = (Instant::now(), wait.patience.unwrap_or_default());
    let mut shown = None;
    loop {
        match ask().await {
            Err(error) if error.kind() == ErrorKind::NotFound && begin.elapsed() < patience => {}
            answer => return answer.map_err(of(group.as_str())),
        }
        if shown.is_none() {
            speech::tell(&speech::groups::waiting_for_group(group));
            shown = Some(waiting::show(format!("waiting for group {group:?} to be created")));
        }
        sleep(LOOK_AGAIN.min(patience.saturating_sub(begin.elapsed()))).await;
    }
}
