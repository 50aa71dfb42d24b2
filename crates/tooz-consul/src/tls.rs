//! TLS by rustls with ring, from certificates on disk, behind the feature `tls`; without the feature, an error that says so.
//!
//! The files are read for each connection that is made, since certificates are renewed on disk while a fleet runs.

#[cfg(feature = "tls")]
pub(crate) use with::Tls;
#[cfg(not(feature = "tls"))]
pub(crate) use without::Tls;

#[cfg(feature = "tls")]
mod with {
    use std::fmt;
    use std::path::Path;
    use std::sync::Arc;

    use tokio::net::TcpStream;
    use tokio_rustls::TlsConnector;
    use tokio_rustls::rustls::pki_types::pem::PemObject;
    use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
    use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto};
    use tooz_core::driver::{CertificateFiles, Options, OwnCertificate};
    use tooz_core::{Error, Result};

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
            config(&files)?;
            Ok(Tls(Arc::new(files)))
        }

        /// Shakes hands over a connection to the server of that name, with the certificates of that moment.
        pub(crate) async fn secure(&self, name: &str, stream: TcpStream) -> std::result::Result<Wire, ConnectError> {
            let files = Arc::clone(&self.0);
            // The system's certificates are many, and a disk may be slow: that is not for the heart to wait for.
            let config = tokio::task::spawn_blocking(move || config(&files)).await.map_err(ConnectError::by)??;
            let name = ServerName::try_from(name.to_owned()).map_err(ConnectError::by)?;
            let secured = TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(ConnectError::by)?;
            Ok(Wire::Secured(Box::new(secured)))
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
        config.alpn_protocols.push(HTTP_1.into());
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
