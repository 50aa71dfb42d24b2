//! The one place that catches the panics of drivers: whatever a driver does, its panic is an error.

use std::any::Any;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Poll;

use crate::base::error::{Error, Result};

/// Runs a piece of a driver's code that does not wait.
pub(crate) fn caught<T>(deed: impl FnOnce() -> T) -> Result<T> {
    catch_unwind(AssertUnwindSafe(deed)).map_err(|panic| Error::panicked(words_of(&*panic)))
}

/// Runs a driver's future. After a panic it is not polled again.
pub(crate) async fn contained<T>(future: impl Future<Output = Result<T>>) -> Result<T> {
    let mut future = std::pin::pin!(future);
    poll_fn(|context| match caught(|| future.as_mut().poll(context)) {
        Ok(poll) => poll,
        Err(panic) => Poll::Ready(Err(panic)),
    })
    .await
}

/// What the panic said.
fn words_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "without a word".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::error::{ErrorKind, Outcome};

    #[tokio::test]
    async fn a_panic_is_an_error_of_unknown_outcome() {
        let panicking = async {
            tokio::task::yield_now().await;
            panic!("as part of {}", "a test")
        };
        let error = contained::<()>(panicking).await.unwrap_err();
        assert_eq!((error.kind(), error.outcome(), error.is_panic()), (ErrorKind::Backend, Outcome::Unknown, true));
        assert_eq!(error.to_string(), "the driver panicked: as part of a test");
        assert!(contained(async { Ok(1) }).await.is_ok());
    }
}
