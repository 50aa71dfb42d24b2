//! What a connection runs over: the client library's connection, which also hears what the server tells by itself.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use sqlx::postgres::PgListener;

use crate::dispatch::Dispatch;
use crate::lanes::Listen;

/// How much that the server tells is routed at once, at most: on whatever thread, there are others that wait.
const AT_ONCE: usize = 64;

/// When this is dropped, the connection ends at once.
///
/// The library would say goodbye first and wait for the answer with the socket open, which a server that stands still does not give: then
/// it would take the session for alive when it goes on. So what the library still wants to do is given to a runtime that ends before it begins.
pub(crate) struct Wire {
    listener: Option<PgListener>,
    dispatch: Arc<Dispatch>,
}

impl Wire {
    /// What is told on it goes to `dispatch`.
    pub(crate) fn new(mut listener: PgListener, dispatch: Arc<Dispatch>) -> Self {
        // It must never come back by itself: what the old connection held is gone.
        listener.eager_reconnect(false);
        listener.ignore_pool_close_event(true);
        Wire { listener: Some(listener), dispatch }
    }
}

impl Listen for Wire {
    type Connection = PgListener;

    fn connection(&mut self) -> Option<&mut PgListener> {
        self.listener.as_mut()
    }

    fn poll_listen(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some(listener) = &mut self.listener else { return Poll::Ready(()) };
        for _ in 0..AT_ONCE {
            // May be dropped half-way: what was not read completely stays in the buffer. Called again after it answered
            // `None`, it would connect anew.
            match pin!(listener.try_recv()).poll(context) {
                Poll::Ready(Ok(Some(notification))) => self.dispatch.tell(&notification),
                Poll::Ready(Ok(None) | Err(_)) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        let Some(listener) = self.listener.take() else { return };
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().build() else { return };
        let entered = runtime.enter();
        drop(listener);
        drop(entered);
        runtime.shutdown_background();
    }
}
