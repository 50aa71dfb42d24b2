//! The place where a heartbeat asks for a testimony, and what one says.

use tokio::sync::oneshot;
use tooz_core::driver::Mutex;

/// Whether the server is at work for a session's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Testimony {
    AtWork,
    /// The connection waits for its client, or is not the session's any more.
    NotAtWork,
    ReadOnly,
}

/// The place where a heartbeat asks the watchdog to testify.
#[derive(Default)]
pub(crate) struct Summons(Mutex<Option<oneshot::Sender<Testimony>>>);

impl Summons {
    /// The later heartbeat is the one that is waited for.
    pub(crate) fn call(&self) -> oneshot::Receiver<Testimony> {
        let (reply, said) = oneshot::channel();
        *self.0.lock() = Some(reply);
        said
    }

    /// The one that waits for a testimony, if any heartbeat does.
    pub(crate) fn take(&self) -> Option<oneshot::Sender<Testimony>> {
        self.0.lock().take().filter(|reply| !reply.is_closed())
    }
}
