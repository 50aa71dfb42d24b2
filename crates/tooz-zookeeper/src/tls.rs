//! TLS by rustls with ring, behind the feature `tls`; without the feature, an error that says so.
//!
//! The client library has TLS too, but only by the default provider of rustls, which would be a second one in every program. So
//! the driver shakes hands itself, and the library connects to it by a relay.

use tooz_core::Result;
use tooz_core::driver::Options;

/// Why a host was not reached by TLS.
#[cfg_attr(not(feature = "tls"), expect(dead_code, reason = "without TLS no host refuses"))]
pub(crate) enum TlsFailure {
    /// Another try may help.
    Passing(String),
    /// The certificates do not fit each other, and no try helps.
    Certificates(String),
}

#[cfg(feature = "tls")]
pub(crate) use with::{Certificates, Stream, Tls, refused};
#[cfg(not(feature = "tls"))]
pub(crate) use without::{Certificates, Tls};

#[cfg(feature = "tls")]
mod with {
    use std::io;
    use std::sync::Arc;

    use tokio::net::TcpStream;
    use tokio_rustls::TlsConnector;
    use tokio_rustls::rustls::{self, pki_types::ServerName};
    use tooz_core::Error;
    use tooz_core::driver::{CertificateFiles, read_certificates};

    use super::{Options, Result, TlsFailure};

    pub(crate) type Stream = tokio_rustls::client::TlsStream<TcpStream>;

    /// The certificates, as the files say at each connection.
    #[derive(Clone)]
    pub(crate) struct Certificates(CertificateFiles);

    /// How one connection is secured.
    #[derive(Clone)]
    pub(crate) struct Tls(TlsConnector);

    impl Certificates {
        /// The files that the options name.
        pub(crate) fn named(options: &Options) -> Result<Self> {
            if cfg!(not(unix)) {
                return Err(Error::config("TLS for ZooKeeper needs a Unix system: use zookeeper:// by a tunnel"));
            }
            CertificateFiles::named(options).map(Certificates)
        }

        /// Reads them as they are now.
        pub(crate) async fn load(&self) -> Result<Tls> {
            Ok(Tls(TlsConnector::from(Arc::new(read_certificates(&self.0).await?))))
        }
    }

    impl Tls {
        /// Connects to `name:port`. The caller sets the limit.
        pub(crate) async fn dial(&self, host: &str) -> std::result::Result<Stream, TlsFailure> {
            let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
            let name = name.trim_start_matches('[').trim_end_matches(']').to_owned();
            let server = ServerName::try_from(name)
                .map_err(|_| TlsFailure::Certificates(format!("no certificate can be for {host}")))?;
            let stream = TcpStream::connect(host).await.map_err(|why| TlsFailure::Passing(why.to_string()))?;
            let _ = stream.set_nodelay(true);
            self.0.connect(server, stream).await.map_err(|why| refused(&why))
        }
    }

    /// What a failed handshake means, or the end of a connection: by TLS 1.3 a client hears only later that it was refused.
    pub(crate) fn refused(why: &io::Error) -> TlsFailure {
        match why.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(rustls::Error::InvalidCertificate(_)) => TlsFailure::Certificates(format!(
                "the server's certificate is not to be trusted ({why}): see to ca=, and to the name in the URL"
            )),
            Some(rustls::Error::AlertReceived(_)) => TlsFailure::Certificates(format!(
                "the server refuses this client ({why}): it may want a certificate, by cert= and key="
            )),
            Some(rustls::Error::InvalidMessage(_)) => TlsFailure::Passing(format!("no TLS is spoken there ({why})")),
            _ => TlsFailure::Passing(format!("TLS: {why}")),
        }
    }
}

#[cfg(not(feature = "tls"))]
mod without {
    use tooz_core::Error;

    use super::{Options, Result, TlsFailure};

    #[derive(Clone)]
    pub(crate) struct Certificates(std::convert::Infallible);

    pub(crate) struct Tls(std::convert::Infallible);

    impl Certificates {
        pub(crate) fn named(_options: &Options) -> Result<Self> {
            Err(Error::config(
                "this program was built without TLS for ZooKeeper: enable the feature `tls`, or use zookeeper://",
            ))
        }

        #[allow(clippy::unused_async)]
        pub(crate) async fn load(&self) -> Result<Tls> {
            match self.0 {}
        }
    }

    impl Tls {
        #[allow(clippy::unused_async)]
        pub(crate) async fn dial(&self, _host: &str) -> std::result::Result<tokio::net::TcpStream, TlsFailure> {
            match self.0 {}
        }
    }
}
