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
    use std::path::Path;
    use std::sync::Arc;

    use tokio::net::TcpStream;
    use tokio_rustls::TlsConnector;
    use tokio_rustls::rustls::pki_types::pem::PemObject;
    use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
    use tokio_rustls::rustls::{self, ClientConfig, RootCertStore, crypto};
    use tooz_core::driver::{CertificateFiles, OwnCertificate};
    use tooz_core::{Error, ErrorKind};

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

        /// Reads them as they are now, on a thread that may block.
        pub(crate) async fn load(&self) -> Result<Tls> {
            let files = self.0.clone();
            let loading = tokio::task::spawn_blocking(move || read(&files));
            loading.await.unwrap_or_else(|_| Err(Error::new(ErrorKind::Backend, "the certificates could not be read")))
        }
    }

    fn read(files: &CertificateFiles) -> Result<Tls> {
        // The provider is named, so that another one elsewhere in the program makes no difference.
        let config = ClientConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|why| Error::config("TLS can't be set up").with_source(why))?
            .with_root_certificates(authorities(files.ca.as_deref())?);
        let config = match &files.own {
            Some(OwnCertificate { cert, key }) => {
                let unusable = |why: &dyn std::fmt::Display| CertificateFiles::unusable("key", key, why);
                let secret = PrivateKeyDer::from_pem_file(key).map_err(|why| unusable(&why))?;
                config.with_client_auth_cert(certificates("cert", cert)?, secret).map_err(|why| unusable(&why))?
            }
            None => config.with_no_client_auth(),
        };
        Ok(Tls(TlsConnector::from(Arc::new(config))))
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

    fn authorities(ca: Option<&Path>) -> Result<RootCertStore> {
        let mut trusted = RootCertStore::empty();
        if let Some(file) = ca {
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
        let unusable = |why: &dyn std::fmt::Display| CertificateFiles::unusable(option, file, why);
        let all = CertificateDer::pem_file_iter(file).map_err(|why| unusable(&why))?;
        let all: Vec<_> = all.collect::<std::result::Result<_, _>>().map_err(|why| unusable(&why))?;
        if all.is_empty() {
            return Err(unusable(&"there is no certificate in it"));
        }
        Ok(all)
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
