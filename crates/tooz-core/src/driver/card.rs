//! A driver's card, what core hands it to connect, and the registry that finds it by the scheme of a URL.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use crate::base::characteristic::{Characteristic, Characteristics};
use crate::base::credentials::CredentialSource;
use crate::base::error::{Error, Result};
use crate::base::id::{MemberId, Namespace};
use crate::base::options::backend_url::BackendUrl;
use crate::base::options::{OptionSpec, Options};
use crate::driver::reporter::Reporter;
use crate::driver::session::Session;

/// What a driver's connect function answers.
pub type ConnectFuture = Pin<Box<dyn Future<Output = Result<Arc<dyn Session>>> + Send>>;

/// A driver's card: everything about it that is known without connecting. Every driver crate exports one as `DRIVER`.
///
/// ```
/// # use tooz_core::driver::{ConnectArgs, ConnectFuture};
/// # use tooz_core::{Characteristic, Characteristics, Driver};
/// # fn connect(args: ConnectArgs) -> ConnectFuture { unimplemented!() }
/// pub const DRIVER: Driver = Driver::new("chalk", &["chalk"], connect)
///     .about("a blackboard in the hall")
///     .url("chalk://ROOM")
///     .characteristics(Characteristics::of(&[Characteristic::DistributedAcrossThreads]));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Driver {
    name: &'static str,
    schemes: &'static [&'static str],
    connect: fn(ConnectArgs) -> ConnectFuture,
    about: &'static str,
    url: &'static str,
    options: &'static [OptionSpec],
    characteristics: Characteristics,
}

impl Driver {
    /// A driver that answers these URL schemes.
    pub const fn new(
        name: &'static str,
        schemes: &'static [&'static str],
        connect: fn(ConnectArgs) -> ConnectFuture,
    ) -> Self {
        Driver { name, schemes, connect, about: "", url: "", options: &[], characteristics: Characteristics::NONE }
    }

    /// Half a sentence for listings.
    pub const fn about(mut self, about: &'static str) -> Self {
        self.about = about;
        self
    }

    /// What a URL looks like.
    pub const fn url(mut self, url: &'static str) -> Self {
        self.url = url;
        self
    }

    /// The options of the URL's query beside the common ones.
    pub const fn options(mut self, options: &'static [OptionSpec]) -> Self {
        self.options = options;
        self
    }

    /// The most that a session of this driver can do and promise; see [`Terms`](crate::Terms) for what a session really has.
    pub const fn characteristics(mut self, characteristics: Characteristics) -> Self {
        self.characteristics = characteristics;
        self
    }

    /// The driver's name, as in `tooz-NAME`.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// The schemes that it answers, the main one first.
    pub const fn schemes(&self) -> &'static [&'static str] {
        self.schemes
    }

    /// Half a sentence about it.
    pub const fn about_text(&self) -> &'static str {
        self.about
    }

    /// What its URL looks like.
    pub const fn url_form(&self) -> &'static str {
        self.url
    }

    /// Its options beside the common ones.
    pub const fn option_specs(&self) -> &'static [OptionSpec] {
        self.options
    }

    /// The most that it can do and promise.
    pub const fn most_characteristics(&self) -> Characteristics {
        self.characteristics
    }

    /// Whether it has this characteristic at its best.
    pub const fn can(&self, one: Characteristic) -> bool {
        self.characteristics.has(one)
    }

    /// Makes a bare session, for a driver that wraps another. Applications connect through
    /// [`ConnectOptions::driver`](crate::ConnectOptions::driver), which needs no registry either.
    pub fn connect(&self, args: ConnectArgs) -> ConnectFuture {
        (self.connect)(args)
    }
}

/// What core hands a driver to connect with.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ConnectArgs {
    /// Hosts and path. (User and password are in `credentials`.)
    pub url: BackendUrl,
    /// The user and the password of the log-in: to be read for each connection. It also knows of the user and the password in the URL.
    pub credentials: CredentialSource,
    /// The options of the URL and the builder, checked against the card.
    pub options: Options,
    /// The member that connects. Another process may use the same name: it is no proof of ownership.
    pub member: MemberId,
    /// The part of the backend to keep to.
    pub namespace: Namespace,
    /// After this long without a heartbeat the session is to end.
    pub session_timeout: Duration,
    /// How long connecting may take; core stops waiting then.
    pub connect_timeout: Duration,
    /// How long a request may take; a driver's own limits are below it, and below a third of the session timeout.
    pub operation_timeout: Duration,
    /// The way to tell core what happens between the calls.
    pub reporter: Reporter,
}

impl ConnectArgs {
    /// The limit for one statement: the operation timeout, and below a third of the session timeout.
    pub fn statement_timeout(&self) -> Duration {
        self.operation_timeout.min(self.session_timeout * 3 / 10)
    }
}

#[doc(hidden)]
pub struct Registered(pub &'static Driver);

inventory::collect!(Registered);

/// Makes a driver known to `connect`: `tooz_core::register!(DRIVER);` at the top of the driver's `lib.rs`.
///
/// The linker keeps a driver crate only if some code names it: `pub use tooz_redis as redis;` or `use my_driver as _;`. A Rust
/// `staticlib` in a C program finds no driver this way; use `DRIVER` itself there.
#[macro_export]
macro_rules! register {
    ($driver:expr) => {
        const _: () = {
            static CARD: $crate::Driver = $driver;
            $crate::__inventory::submit! { $crate::driver::Registered(&CARD) }
        };
    };
}

/// The drivers that are linked into this program, by name.
pub fn drivers() -> Vec<&'static Driver> {
    let mut drivers: Vec<_> = inventory::iter::<Registered>().map(|one| one.0).collect();
    drivers.sort_by_key(|driver| driver.name);
    drivers
}

/// The one driver that answers `scheme`.
pub(crate) fn find(scheme: &str) -> Result<&'static Driver> {
    let all = drivers();
    let mut found = all.iter().filter(|driver| driver.schemes.contains(&scheme));
    match (found.next(), found.next()) {
        (Some(driver), None) => Ok(driver),
        (Some(one), Some(other)) => Err(Error::config(format!(
            "two drivers, {} and {}, answer the scheme {scheme:?}; link only one of them, or connect through its DRIVER",
            one.name, other.name
        ))),
        (None, _) => {
            let linked: Vec<_> = all.iter().flat_map(|driver| driver.schemes).copied().collect();
            let linked = if linked.is_empty() { "none".to_owned() } else { linked.join(", ") };
            Err(Error::config(format!(
                "no linked driver answers the scheme {scheme:?}; linked are {linked}; {}",
                advice(scheme)
            )))
        }
    }
}

/// How to link what is missing. The schemes of the drivers that are known to exist are data, not a dependency.
fn advice(scheme: &str) -> String {
    const KNOWN: &[(&str, &[&str])] = &[
        ("memory", &["memory", "zake"]),
        ("file", &["file"]),
        ("ipc", &["ipc"]),
        ("redis", &["redis", "rediss", "redis+unix"]),
        ("etcd", &["etcd", "etcd+https", "etcd3+http", "etcd3+https"]),
        ("zookeeper", &["zookeeper", "kazoo", "zookeeper+tls", "kazoo+tls"]),
        ("consul", &["consul", "consul+https"]),
        ("postgres", &["postgres", "postgresql"]),
        ("mysql", &["mysql", "mariadb"]),
        ("memcached", &["memcached", "memcached+tls", "memcached+unix"]),
    ];
    match KNOWN.iter().find(|(_, schemes)| schemes.contains(&scheme)) {
        Some((feature, _)) => format!("enable feature {feature:?} of the crate `tooz`, or `use tooz_{feature} as _;`"),
        None => "no driver of the crate `tooz` has that scheme; one of your own is linked by `use my_driver as _;`"
            .to_owned(),
    }
}
