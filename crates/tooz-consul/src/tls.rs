//! TLS by rustls with ring, from certificates on disk, behind the feature `tls`; without the feature, an error that says so.
//!
//! The files are read for each connection that is made, since certificates are renewed on disk while a fleet runs.

#[cfg(feature = "tls")]
pub(crate) use with::Tls;
#[cfg(not(feature = "tls"))]
pub(crate) use without::Tls;

#[cfg(feature = "tls")]
mod with {
    use std::sync::Arc;

    use tokio::net::TcpStream;
    use tokio_rustls::TlsConnector;
    use tokio_rustls::rustls::pki_types::ServerName;
    use tooz_core::Result;
    use tooz_core::driver::{CertificateFiles, Options, read_certificates};

    use crate::wire::{ConnectError, Wire};

    /// Without a word of the client an agent would speak HTTP/2.
    const HTTP_1: &[u8] = b"http/1.1";

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

        /// Shakes hands over a connection to the server of that name, with the certificates of that moment.
        pub(crate) async fn secure(&self, name: &str, stream: TcpStream) -> std::result::Result<Wire, ConnectError> {
            let mut config = read_certificates(&self.0).await?;
            config.alpn_protocols.push(HTTP_1.into());
            let name = ServerName::try_from(name.to_owned()).map_err(ConnectError::by)?;
            let secured = TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(ConnectError::by)?;
            Ok(Wire::Secured(Box::new(secured)))
        }
    }
}

#[cfg(not(feature = "tls"))]
mod without {
    use std::convert::Infallible;

    use tokio::net::TcpStream;
    use tooz_core::driver::Options;
    use tooz_core::{Error, Result};

    use crate::wire::{ConnectError, Wire};

    #[derive(Clone)]
    pub(crate) struct Tls(Infallible);

    impl Tls {
        pub(crate) fn read(_options: &Options) -> Result<Self> {
            Err(Error::config(
                "this program was built without TLS for Consul: enable the feature `tls`, or use consul://",
            ))
        }

        #[allow(clippy::unused_async)] // As with TLS.
        pub(crate) async fn secure(&self, _name: &str, _stream: TcpStream) -> std::result::Result<Wire, ConnectError> {
            match self.0 {}
        }
    }
}
