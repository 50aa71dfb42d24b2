//! What the heart tells to `tracing`: handed to a thread of its own, so that a subscriber that blocks can't stop the beat.

use std::sync::OnceLock;
use std::sync::mpsc::{SyncSender, sync_channel};

use crate::Error;
use crate::inner::Inner;
use crate::loss::LossReason;
use crate::session::LockRequest;

type Tale = Box<dyn FnOnce() + Send>;

/// Tells later, on the thread `tooz-trace`. What does not fit into the queue is not told.
fn tell(tale: impl FnOnce() + Send + 'static) {
    static TELLER: OnceLock<Option<SyncSender<Tale>>> = OnceLock::new();
    let teller = TELLER.get_or_init(|| {
        let (sender, receiver) = sync_channel::<Tale>(256);
        let thread = std::thread::Builder::new().name("tooz-trace".to_owned()).spawn(move || {
            while let Ok(tale) = receiver.recv() {
                tale();
            }
        });
        thread.is_ok().then_some(sender)
    });
    if let Some(teller) = teller {
        let _ = teller.try_send(Box::new(tale));
    }
}

pub(crate) fn renewed(inner: &Inner) {
    if tracing::enabled!(target: "tooz::renew", tracing::Level::TRACE) {
        let (driver, member) = (inner.driver.name(), inner.member.clone());
        tell(move || {
            let _span = tracing::trace_span!(target: "tooz::renew", "renew", driver, %member).entered();
            tracing::trace!(target: "tooz::renew", "heartbeat");
        });
    }
}

pub(crate) fn beat_failed(inner: &Inner, error: &Error) {
    let (driver, member, error) = (inner.driver.name(), inner.member.clone(), error.to_string());
    tell(move || {
        let _span = tracing::warn_span!(target: "tooz::renew", "renew", driver, %member).entered();
        tracing::warn!(target: "tooz::renew", error, "heartbeat failed");
    });
}

pub(crate) fn session_ended(driver: &'static str, why: String) {
    tell(move || tracing::debug!(target: "tooz::lose", driver, why, "the driver reports the end of its session"));
}

pub(crate) fn lost_one(driver: &'static str, request: Option<&LockRequest>, reason: LossReason) {
    let what = request.map_or_else(|| "membership".to_owned(), |request| request.key.to_string());
    tell(move || {
        let _span = tracing::error_span!(target: "tooz::lose", "lose", driver, what).entered();
        tracing::error!(target: "tooz::lose", %reason, "one grant lost, the session lives on");
    });
}

pub(crate) fn lost(inner: &Inner, reason: LossReason) {
    let (driver, member) = (inner.driver.name(), inner.member.clone());
    tell(move || {
        let _span = tracing::error_span!(target: "tooz::lose", "lose", driver, %member).entered();
        tracing::error!(target: "tooz::lose", %reason, "session lost: its locks and leaderships are gone");
    });
}
