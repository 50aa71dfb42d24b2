//! One connection to one member of the cluster, as a request or a stream uses it, and what every request carries beside its message.

use std::sync::Arc;

use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Request, Status};

use crate::error::{self, Failure};
use crate::proto::etcdserverpb::auth_client::AuthClient;
use crate::proto::etcdserverpb::cluster_client::ClusterClient;
use crate::proto::etcdserverpb::kv_client::KvClient;
use crate::proto::etcdserverpb::lease_client::LeaseClient;
use crate::proto::etcdserverpb::maintenance_client::MaintenanceClient;
use crate::proto::etcdserverpb::watch_client::WatchClient;

/// A connection, with the token of the moment in which it was chosen. Its channel dials again by itself when it was cut, as the library gives no way to forbid that; that
/// harms nothing, since each request says by its keys and its lease for what it is meant, and a cut is told by the requests that it has ended.
#[derive(Clone)]
pub(crate) struct Connection {
    pub(crate) channel: Channel,
    pub(crate) headers: Headers,
    /// `host:port`, for messages.
    pub(crate) address: Arc<str>,
    /// To which endpoint it leads, and how many connections there were before it.
    pub(crate) endpoint: usize,
    pub(crate) count: u64,
    /// Which log-in the token is of.
    pub(crate) login: u64,
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

impl Connection {
    /// Judges what came back over this connection.
    pub(crate) fn judge(&self, status: Status) -> Failure {
        error::judge(status, &self.address)
    }
}

// etcd bounds what it stores; a whole group in one answer may be longer than the library's 4 MB.
macro_rules! clients {
    ($($(#[$doc:meta])* $name:ident: $client:ident;)*) => {
        impl Connection {$(
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
    /// Which members there are.
    cluster: ClusterClient;
    /// How a member fares.
    maintenance: MaintenanceClient;
}
