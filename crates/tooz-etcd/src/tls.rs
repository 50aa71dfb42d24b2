//! TLS by rustls with ring, from certificates on disk, behind the feature `tls`; without the feature, an error that says so.
//!
//! The client library has TLS too, but keeps for ever what it was given first. Certificates are renewed on disk while a fleet runs, so the
//! driver shakes hands itself, with what the files say at each connection.

use std::error::Error as StdError;
use std::fmt;

#[cfg(feature = "tls")]
pub(crate) use with::Tls;
#[cfg(not(feature = "tls"))]
pub(crate) use without::Tls;

/// Why there is no connection: what was to be sent over it was not.
#[derive(Debug)]
pub(crate) struct ConnectError(pub(crate) Box<dyn StdError + Send + Sync>);

impl fmt::Display for ConnectError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl StdError for ConnectError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&*self.0)
    }
}

#[cfg(feature = "tls")]
mod with {
    use std::sync::Arc;
    use std::task::{Context, Poll};

    use hyper_util::rt::TokioIo;
    use tokio::net::TcpStream;
    use tokio_rustls::TlsConnector;
    use tokio_rustls::client::TlsStream;
    use tokio_rustls::rustls::pki_types::ServerName;
    use tonic::codegen::http::Uri;
    use tonic::codegen::{BoxFuture, Service};
    use tonic::transport::{Channel, Endpoint};
    use tooz_core::Result;
    use tooz_core::driver::{CertificateFiles, Options, read_certificates};

    use super::ConnectError;

    /// The one protocol that etcd's clients speak.
    const HTTP_2: &[u8] = b"h2";

    /// How connections are secured: by which files, not by what stood in them once.
    #[derive(Clone)]
    pub(crate) struct Tls(Arc<CertificateFiles>);

    impl Tls {
        /// Takes the options, and reads the files once, so that a wrong one is told at once.
        pub(crate) fn read(options: &Options) -> Result<Self> {
            let files = CertificateFiles::named(options)?;
            files.client_config()?;
            Ok(Tls(Arc::new(files)))
        }

        /// A channel that connects when it is first used, and each time with the certificates of that moment.
        pub(crate) fn connect_lazily(&self, plan: &Endpoint) -> Channel {
            plan.connect_with_connector_lazy(Dialer(self.clone()))
        }
    }

    /// Makes the connections of one channel.
    struct Dialer(Tls);

    impl Service<Uri> for Dialer {
        type Response = TokioIo<TlsStream<TcpStream>>;
        type Error = ConnectError;
        type Future = BoxFuture<Self::Response, ConnectError>;

        fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<std::result::Result<(), ConnectError>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, uri: Uri) -> Self::Future {
            let tls = self.0.clone();
            Box::pin(async move { dial(&tls, &uri).await.map(TokioIo::new).map_err(ConnectError) })
        }
    }

    async fn dial(
        tls: &Tls,
        uri: &Uri,
    ) -> std::result::Result<TlsStream<TcpStream>, Box<dyn std::error::Error + Send + Sync>> {
        let mut config = read_certificates(&tls.0).await?;
        config.alpn_protocols.push(HTTP_2.into());
        let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned();
        let stream = TcpStream::connect((host.as_str(), uri.port_u16().unwrap_or(443))).await?;
        let _ = stream.set_nodelay(true);
        let stream = TlsConnector::from(Arc::new(config)).connect(ServerName::try_from(host)?, stream).await?;
        if stream.get_ref().1.alpn_protocol() != Some(HTTP_2) {
            return Err("TLS is spoken there, but no HTTP/2".into());
        }
        Ok(stream)
    }
}

#[cfg(not(feature = "tls"))]
mod without {
    use std::convert::Infallible;

    use tonic::transport::{Channel, Endpoint};
    use tooz_core::driver::Options;
    use tooz_core::{Error, Result};

    #[derive(Clone)]
    pub(crate) struct Tls(Infallible);

    impl Tls {
        pub(crate) fn read(_options: &Options) -> Result<Self> {
            Err(Error::config("this program was built without TLS for etcd: enable the feature `tls`, or use etcd://"))
        }

        pub(crate) fn connect_lazily(&self, _plan: &Endpoint) -> Channel {
            match self.0 {}
        }
    }
}
