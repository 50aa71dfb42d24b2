//! One endpoint: a channel to one member of the cluster, and what every request to it carries.

use std::sync::Arc;
use std::time::Duration;

use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Request, Status};
use tooz_core::driver::Mutex;
use tooz_core::{Error, Result};

use crate::error::{self, Failure};
use crate::proto::etcdserverpb::auth_client::AuthClient;
use crate::proto::etcdserverpb::cluster_client::ClusterClient;
use crate::proto::etcdserverpb::kv_client::KvClient;
use crate::proto::etcdserverpb::lease_client::LeaseClient;
use crate::proto::etcdserverpb::maintenance_client::MaintenanceClient;
use crate::proto::etcdserverpb::watch_client::WatchClient;
use crate::tls::Tls;

/// etcd ends connections that ping more often than once in 5 s. Beats notice a dead peer long before; this mends a connection
/// on which nothing but a watch is left.
const PING: Duration = Duration::from_secs(6);

/// One member of the cluster, as the URL names it.
pub(crate) struct Endpoint {
    address: Arc<str>,
    plan: tonic::transport::Endpoint,
    tls: Option<Tls>,
    channel: Mutex<(u64, Channel)>,
}

impl Endpoint {
    /// Connects when it is first used. Must be called inside the heart's runtime.
    pub(crate) fn new(address: &str, tls: Option<&Tls>, connect_timeout: Duration) -> Result<Self> {
        let host: Arc<str> = address.split_once("://").map_or(address, |(_, host)| host).into();
        let wrong = |error: &dyn std::fmt::Display| {
            Error::config(format!("{host} is no address of an etcd member: {error}; write HOST:PORT"))
        };
        // The library must not think of TLS, which is the driver's own.
        let mut plan = tonic::transport::Endpoint::from_shared(format!("http://{host}"))
            .map_err(|error| wrong(&error))?
            .connect_timeout(connect_timeout)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(PING)
            .keep_alive_timeout(PING);
        if tls.is_some() {
            plan = plan.origin(format!("https://{host}").parse().map_err(|error| wrong(&error))?);
        }
        let tls = tls.cloned();
        let channel = Mutex::new((0, connect(&plan, tls.as_ref())));
        Ok(Endpoint { address: host, plan, tls, channel })
    }

    /// `host:port`.
    pub(crate) fn address(&self) -> &Arc<str> {
        &self.address
    }

    pub(crate) fn is_by_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// The present channel, and the count by which [`renew`](Self::renew) knows it.
    pub(crate) fn channel(&self) -> (u64, Channel) {
        let channel = self.channel.lock();
        (channel.0, channel.1.clone())
    }

    /// Puts a fresh connection in the place of one that did not answer: the network may have forgotten it without a word.
    /// Whatever still runs over the old one keeps it until it ends.
    pub(crate) fn renew(&self, count: u64) {
        let mut channel = self.channel.lock();
        if channel.0 == count {
            *channel = (count + 1, connect(&self.plan, self.tls.as_ref()));
        }
    }
}

fn connect(plan: &tonic::transport::Endpoint, tls: Option<&Tls>) -> Channel {
    match tls {
        Some(tls) => tls.connect_lazily(plan),
        None => plan.connect_lazy(),
    }
}

/// What every request carries beside its message.
#[derive(Clone)]
pub(crate) struct Headers {
    /// The token of a user who has logged in.
    pub(crate) token: Option<MetadataValue<Ascii>>,
    /// A member that sees no leader refuses, instead of letting the request or the stream hang.
    pub(crate) require_leader: bool,
}

impl Interceptor for Headers {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if self.require_leader {
            request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
        }
        if let Some(token) = &self.token {
            request.metadata_mut().insert("token", token.clone());
        }
        Ok(request)
    }
}

type Service = InterceptedService<Channel, Headers>;

/// One endpoint as it is used for one request or one stream.
#[derive(Clone)]
pub(crate) struct Line {
    pub(crate) channel: Channel,
    pub(crate) headers: Headers,
    /// `host:port`, for messages.
    pub(crate) address: Arc<str>,
    /// Which endpoint it is, and which of its connections.
    pub(crate) endpoint: usize,
    pub(crate) connection: u64,
    /// Which login the token is of.
    pub(crate) login: u64,
}

impl Line {
    /// Judges what came back over this line.
    pub(crate) fn judge(&self, status: Status) -> Failure {
        error::judge(status, &self.address)
    }
}

// etcd bounds what it stores; a whole group in one answer may be longer than the library's 4 MB.
macro_rules! clients {
    ($($(#[$doc:meta])* $name:ident: $client:ident;)*) => {
        impl Line {$(
            $(#[$doc])*
            pub(crate) fn $name(&self) -> $client<Service> {
                $client::with_interceptor(self.channel.clone(), self.headers.clone())
                    .max_decoding_message_size(usize::MAX)
            }
        )*}
    };
}

clients! {
    /// Keys and transactions.
    kv: KvClient;
    /// Leases.
    lease: LeaseClient;
    /// Watches.
    watch: WatchClient;
    /// Logging in.
    auth: AuthClient;
    /// Who the members are.
    cluster: ClusterClient;
    /// How a member fares.
    maintenance: MaintenanceClient;
}
