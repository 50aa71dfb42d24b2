//! How a coordinator is configured: the URL and the builder reach the same settings.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::base::characteristic::Characteristics;
use crate::base::credentials::{CredentialSource, Credentials};
use crate::base::error::{Error, Result};
use crate::base::id::{MemberId, Namespace};
use crate::base::options::backend_url::BackendUrl;
use crate::base::settings::Settings;
use crate::driver::card::{Driver, find};
use crate::engine::meter::MeterOptions;
use crate::engine::telemetry::Telemetry;
use crate::handles::coordinator::Coordinator;

/// Connects `member` to the backend behind `url`; see [`ConnectOptions`] for everything that can be set.
///
/// Nothing is owned at the backend yet: the session opens with the first lock or join.
///
/// ```no_run
/// # async fn example() -> tooz_core::Result<()> {
/// let coordinator = tooz_core::connect("memory://example", "worker-1").await?;
/// let guard = coordinator.lock("nightly")?.acquire().await?;
/// println!("token {}", guard.fencing_token());
/// guard.release().await?;
/// coordinator.close().await
/// # }
/// ```
///
/// # Errors
/// As [`ConnectOptions::connect`]; [`Config`](crate::ErrorKind::Config) also where the URL can't be read or the member's id is no name.
///
/// # Cancel safety
/// Dropping it leaves nothing behind at the backend.
pub async fn connect<N>(url: &str, member: N) -> Result<Coordinator>
where
    N: TryInto<MemberId>,
    Error: From<N::Error>,
{
    ConnectOptions::new(url)?.member(member)?.connect().await
}

/// Everything that can be set before connecting. A value from the builder wins over the URL.
///
/// ```
/// use std::time::Duration;
/// use tooz_core::{Characteristic, Characteristics, ConnectOptions};
/// # use tooz_memory as _;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> tooz_core::Result<()> {
/// let coordinator = ConnectOptions::new("memory://connect-options?operation_timeout=2s")?
///     .member("worker-1")?
///     .namespace(&"billing".parse()?)
///     .session_timeout(Duration::from_secs(30))
///     .require(Characteristics::of(&[Characteristic::FairLocks]))
///     .connect()
///     .await?;
/// assert_eq!(coordinator.session_timeout(), Duration::from_secs(30));
/// coordinator.close().await
/// # }
/// ```
#[derive(Clone)]
pub struct ConnectOptions {
    url: BackendUrl,
    member: Option<MemberId>,
    driver: Option<&'static Driver>,
    require: Characteristics,
    ask: Option<Arc<dyn Fn() -> Result<Credentials> + Send + Sync>>,
    meter: MeterOptions,
}

impl ConnectOptions {
    /// Begins with a URL: `scheme://user:password@host1:port,host2:port/path?option=value`.
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config): it is no such URL. The error shows no part of the password.
    pub fn new(url: &str) -> Result<Self> {
        Ok(ConnectOptions {
            url: BackendUrl::parse(url)?,
            member: None,
            driver: None,
            require: Characteristics::NONE,
            ask: None,
            meter: MeterOptions::default(),
        })
    }

    /// Sets the member that connects. Needed: there is no default, since a name that was not chosen is no help at three in the morning.
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config): it is no name; the error says why.
    pub fn member<N>(mut self, member: N) -> Result<Self>
    where
        N: TryInto<MemberId>,
        Error: From<N::Error>,
    {
        self.member = Some(member.try_into()?);
        Ok(self)
    }

    /// Sets the part of the backend to keep to; default `tooz`.
    pub fn namespace(self, namespace: &Namespace) -> Self {
        self.option("namespace", namespace.as_str())
    }

    /// Sets after how long without a heartbeat the session ends; default 10 s.
    pub fn session_timeout(self, timeout: Duration) -> Self {
        self.duration("session_timeout", timeout)
    }

    /// Sets how long connecting may take; default 5 s.
    pub fn connect_timeout(self, timeout: Duration) -> Self {
        self.duration("connect_timeout", timeout)
    }

    /// Sets how long one request may take; default 5 s.
    pub fn operation_timeout(self, timeout: Duration) -> Self {
        self.duration("operation_timeout", timeout)
    }

    /// Stops the heartbeat when a task on the runtime that calls [`connect`](Self::connect) has not run for that long, so
    /// that a dead-locked application loses its session instead of keeping its locks for ever. Off by default; without
    /// effect where the kernel is the judge.
    pub fn stall_timeout(self, timeout: Duration) -> Self {
        self.duration("stall_timeout", timeout)
    }

    /// Sets any option of the URL's query.
    pub fn option(mut self, name: &str, value: impl Into<String>) -> Self {
        self.url.set_option(name, value.into());
        self
    }

    /// Asks this function for user and password at each connection, in place of the URL: for secrets that are changed while the
    /// application runs. It may block; it is called on a thread of its own.
    ///
    /// ```no_run
    /// # fn from_the_vault() -> tooz_core::Result<String> { unimplemented!() }
    /// # fn example() -> tooz_core::Result<()> {
    /// let options = tooz_core::ConnectOptions::new("redis://localhost")?
    ///     .credentials(|| Ok(tooz_core::Credentials::new("billing", from_the_vault()?)));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// None here. What the function answers as an error is that of the call for which a connection is made.
    pub fn credentials(mut self, ask: impl Fn() -> Result<Credentials> + Send + Sync + 'static) -> Self {
        self.ask = Some(Arc::new(ask));
        self
    }

    /// Refuses to connect to a backend that lacks one of these, naming it.
    pub fn require(mut self, characteristics: Characteristics) -> Self {
        self.require = characteristics;
        self
    }

    /// Connects through this driver, without looking for one by the scheme.
    pub fn driver(mut self, driver: &'static Driver) -> Self {
        self.driver = Some(driver);
        self
    }

    /// Sets the value of the label `coordinator` of all metrics; default: the namespace. Two coordinators of one process that are
    /// to be told apart need two names.
    #[cfg(feature = "metrics")]
    pub fn metrics_label(mut self, name: &str) -> Self {
        self.meter.coordinator = Some(name.into());
        self
    }

    /// Adds the names of locks and groups to the labels of metrics. Off by default: each name is a series of its own at the
    /// recorder, for as long as the process runs.
    #[cfg(feature = "metrics")]
    pub fn metrics_with_names(mut self) -> Self {
        self.meter.with_names = true;
        self
    }

    /// Connects.
    ///
    /// # Errors
    /// - [`Config`](crate::ErrorKind::Config), which no repetition mends: no member was given; no linked driver, or more than one, answers the scheme; an
    ///   option is unknown or wrong; the backend lacks what [`require`](Self::require) demands; the server is one that the driver can't use as it is.
    /// - [`Unauthorized`](crate::ErrorKind::Unauthorized): the backend refuses the user or the password.
    /// - [`Unavailable`](crate::ErrorKind::Unavailable) or [`TimedOut`](crate::ErrorKind::TimedOut): it can't be reached, or has not answered within the connect
    ///   timeout. Core does not try again by itself before the first connection.
    /// - [`Unsupported`](crate::ErrorKind::Unsupported): the driver can't run on this system.
    /// - [`Backend`](crate::ErrorKind::Backend): another program answers there, or the function for [`credentials`](Self::credentials) panicked. An error of
    ///   that function keeps its kind.
    ///
    /// # Cancel safety
    /// Dropping it leaves nothing behind at the backend.
    pub async fn connect(self) -> Result<Coordinator> {
        let driver = match self.driver {
            Some(driver) => driver,
            None => find(self.url.scheme())?,
        };
        let member = self.member.clone().ok_or_else(|| {
            Error::config("no member id was given: ConnectOptions::member names who connects").in_driver(driver.name())
        })?;
        let options = self.url.options(driver.name(), driver.option_specs())?;
        let settings = Settings::read(&options).map_err(|error| error.in_driver(driver.name()))?;
        let credentials =
            CredentialSource::choose(&self.url, &options, self.ask).map_err(|error| error.in_driver(driver.name()))?;
        let telemetry = Telemetry::new(driver.name(), member, settings.namespace.as_str(), &self.meter);
        Coordinator::start(driver, self.url, options, credentials, settings, self.require, telemetry).await
    }

    #[cfg(test)]
    pub(crate) fn url(&self) -> &BackendUrl {
        &self.url
    }

    fn duration(self, name: &str, duration: Duration) -> Self {
        self.option(name, humantime::format_duration(duration).to_string())
    }
}

impl fmt::Debug for ConnectOptions {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ConnectOptions")
            .field("url", &self.url)
            .field("member", &self.member)
            .finish_non_exhaustive()
    }
}
