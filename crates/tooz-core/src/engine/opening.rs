//! How a session comes to be: the connection, the opening, and whether it has what the application requires.

use std::sync::Arc;

use crate::base::characteristic::Characteristics;
use crate::base::clock::Moment;
use crate::base::contain::contained;
use crate::base::error::{Error, ErrorKind, Result};
use crate::driver::card::ConnectArgs;
use crate::engine::ending::close_once;
use crate::engine::inner::Inner;
use crate::engine::live_session::LiveSession;
#[cfg(feature = "metrics")]
use crate::engine::metered::Metered;

pub(super) async fn connect(inner: &Arc<Inner>) -> Result<Arc<LiveSession>> {
    let live = LiveSession::new(Arc::clone(&inner.telemetry), Arc::clone(&inner.stirred));
    let settings = &inner.settings;
    let args = ConnectArgs {
        url: inner.url.clone(),
        credentials: inner.credentials.clone(),
        options: inner.options.clone(),
        member: inner.member.clone(),
        namespace: settings.namespace.clone(),
        session_timeout: settings.session_timeout,
        connect_timeout: settings.connect_timeout,
        operation_timeout: settings.operation_timeout,
        reporter: live.reporter(),
    };
    let limit = settings.connect_timeout;
    let connecting = contained(async { inner.driver.connect(args).await });
    let session = tokio::time::timeout(limit, connecting)
        .await
        .unwrap_or_else(|_| {
            Err(Error::new(
                ErrorKind::TimedOut,
                format!("no connection to {} within {limit:?}; check the address, or raise connect_timeout", inner.url),
            ))
        })
        .map_err(|error| error.not_of_core().in_driver(inner.driver.name()))?;
    #[cfg(feature = "metrics")]
    let session = Metered::new(session, Arc::clone(&inner.telemetry));
    live.attach(session)?;
    if let Err(error) = inner.require(&live) {
        // It was never opened, so there is nothing to end at the backend but the connection.
        let _ = close_once(&live, limit).await;
        return Err(error);
    }
    Ok(live)
}

/// Opens the session; answers the moment at which its first timeout began.
pub(super) async fn open(inner: Arc<Inner>, live: Arc<LiveSession>) -> Result<Moment> {
    let sent = live.clock().now();
    let what = || "open the session".to_owned();
    live.call_within(inner.settings.connect_timeout, what, |session| async move { session.open().await })
        .await
        .map_err(|error| error.context("the session can't be opened"))?;
    // A session that is opened anew may have another server behind it.
    inner.require(&live)?;
    let terms = live.terms()?;
    if let Some(timeout) = terms.timeout {
        let margin = LiveSession::margin_of(&terms, timeout);
        if timeout <= margin * 2 {
            return Err(Error::config(format!(
                "session_timeout={timeout:?} is too short: this driver needs a margin of {margin:?}, and more than twice that"
            ))
            .in_driver(inner.driver.name()));
        }
        if !live.credit(sent, timeout, margin) {
            return Err(Error::new(
                ErrorKind::TimedOut,
                format!("opening the session took longer than it lives; raise session_timeout={timeout:?}"),
            )
            .in_driver(inner.driver.name()));
        }
    }
    Ok(sent)
}

impl Inner {
    /// Whether the session has all that the application requires.
    fn require(&self, live: &LiveSession) -> Result<()> {
        let missing = live.terms()?.characteristics.missing(self.require);
        if missing == Characteristics::NONE {
            return Ok(());
        }
        Err(Error::config(format!(
            "this backend lacks what is required: {missing}; `tooz drivers` lists which backends have it"
        ))
        .in_driver(self.driver.name()))
    }
}
