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
    use std::fmt;
    use std::path::Path;
    use std::sync::Arc;
    use std::task::{Context, Poll};

    use hyper_util::rt::TokioIo;
    use tokio::net::TcpStream;
    use tokio_rustls::TlsConnector;
    use tokio_rustls::client::TlsStream;
    use tokio_rustls::rustls::pki_types::pem::PemObject;
    use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
    use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto};
    use tonic::codegen::http::Uri;
    use tonic::codegen::{BoxFuture, Service};
    use tonic::transport::{Channel, Endpoint};
    use tooz_core::driver::{CertificateFiles, Options, OwnCertificate};
    use tooz_core::{Error, Result};

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
            config(&files)?;
            Ok(Tls(Arc::new(files)))
        }

        /// A channel that connects when it is first used, and each time with the certificates of that moment.
        pub(crate) fn connect_lazily(&self, plan: &Endpoint) -> Channel {
            plan.connect_with_connector_lazy(Dialer(self.clone()))
        }
    }

    /// What the files say now.
    fn config(files: &CertificateFiles) -> Result<ClientConfig> {
        // The provider is named, so that another one elsewhere in the program makes no difference.
        let config = ClientConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|why| Error::config("TLS can't be set up").with_source(why))?
            .with_root_certificates(authorities(files.ca.as_deref())?);
        let mut config = match &files.own {
            Some(OwnCertificate { cert, key }) => {
                let wrong = |why: &dyn fmt::Display| CertificateFiles::unusable("key", key, why);
                let secret = PrivateKeyDer::from_pem_file(key).map_err(|why| wrong(&why))?;
                config.with_client_auth_cert(certificates("cert", cert)?, secret).map_err(|why| wrong(&why))?
            }
            None => config.with_no_client_auth(),
        };
        config.alpn_protocols.push(HTTP_2.into());
        Ok(config)
    }

    fn authorities(file: Option<&Path>) -> Result<RootCertStore> {
        let mut trusted = RootCertStore::empty();
        if let Some(file) = file {
            for certificate in certificates("ca", file)? {
                trusted.add(certificate).map_err(|why| CertificateFiles::unusable("ca", file, why))?;
            }
        } else {
            // One spoiled certificate of the system is no reason to trust none of the others.
            trusted.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if trusted.is_empty() {
                return Err(CertificateFiles::none_of_the_system());
            }
        }
        Ok(trusted)
    }

    fn certificates(option: &str, file: &Path) -> Result<Vec<CertificateDer<'static>>> {
        let wrong = |why: &dyn fmt::Display| CertificateFiles::unusable(option, file, why);
        let all = CertificateDer::pem_file_iter(file).map_err(|why| wrong(&why))?;
        let all: Vec<_> = all.collect::<std::result::Result<_, _>>().map_err(|why| wrong(&why))?;
        if all.is_empty() {
            return Err(wrong(&"there is no certificate in it"));
        }
        Ok(all)
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
        let files = Arc::clone(&tls.0);
        // The system's certificates are many, and a disk may be slow: that is not for the heart to wait for.
        let config = tokio::task::spawn_blocking(move || config(&files)).await??;
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
