//! A group that is not there: what is said of it, and waiting for it where that is wanted.

use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout};
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

/// Asks something of a group, again and again while that is missing, if it is to be waited for. As with a watch, a backend that can't be used to
/// begin with is an error, and one that fails afterwards is told of and waited for.
pub(super) async fn wait_for<T>(
    group: &GroupId,
    wait: WaitForGroup,
    ask: impl AsyncFn() -> tooz::Result<T>,
) -> Result<T, CommandFailure> {
    let (begin, patience) = (Instant::now(), wait.patience.unwrap_or_default());
    let (mut shown, mut is_troubled) = (None, false);
    let mut answer = ask().await;
    loop {
        let error = match answer {
            Ok(answer) => {
                if is_troubled {
                    speech::tell(&speech::session::recovered());
                }
                return Ok(answer);
            }
            Err(error) => error,
        };
        let is_missing = error.kind() == ErrorKind::NotFound;
        let left = patience.saturating_sub(begin.elapsed());
        if left.is_zero() || !(is_missing || shown.is_some()) {
            return Err(of(group.as_str())(error));
        }
        if is_missing && std::mem::take(&mut is_troubled) {
            speech::tell(&speech::session::recovered());
        } else if !is_missing && !std::mem::replace(&mut is_troubled, true) {
            speech::tell(&speech::session::troubled(&error));
        }
        if shown.is_none() {
            speech::tell(&speech::groups::waiting_for_group(group));
            shown = Some(waiting::show(format!("waiting for group {group:?} to be created")));
        }
        sleep(LOOK_AGAIN.min(left)).await;
        let left = patience.saturating_sub(begin.elapsed()).max(LOOK_AGAIN);
        answer = timeout(left, ask()).await.unwrap_or_else(|_| Err(no_answer()));
    }
}

/// What an outage comes to that outlasts the patience.
fn no_answer() -> Error {
    Error::new(ErrorKind::TimedOut, "the backend does not answer, so it is not known whether there is such a group")
}
