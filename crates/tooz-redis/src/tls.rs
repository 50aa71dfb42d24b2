//! TLS for `rediss://`: rustls with ring, trusting the system's authorities or those of `ca`. The files are read for each connection,
//! since certificates are renewed.

#[cfg(feature = "tls")]
pub(crate) use with::{Sink, Source, shake_hands};
#[cfg(not(feature = "tls"))]
pub(crate) use without::{Sink, Source, shake_hands};

#[cfg(feature = "tls")]
mod with {
    use std::fmt;
    use std::io;
    use std::path::Path;
    use std::sync::Arc;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
    use tokio::net::TcpStream;
    use tokio_rustls::TlsConnector;
    use tokio_rustls::client::TlsStream;
    use tokio_rustls::rustls::pki_types::pem::PemObject;
    use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
    use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto};
    use tooz_core::driver::CertificateFiles;
    use tooz_core::{Error, Result};

    use crate::error::unreached;

    pub(crate) struct Source(ReadHalf<TlsStream<TcpStream>>);

    /// Held by one task at a time, which is the connection's own.
    pub(crate) struct Sink(tokio::sync::Mutex<WriteHalf<TlsStream<TcpStream>>>);

    impl Source {
        pub(crate) async fn read(&mut self, into: &mut Vec<u8>) -> io::Result<usize> {
            self.0.read_buf(into).await
        }
    }

    impl Sink {
        pub(crate) async fn write_all(&self, bytes: &[u8]) -> io::Result<()> {
            let mut stream = self.0.lock().await;
            stream.write_all(bytes).await?;
            stream.flush().await
        }
    }

    /// Encrypts a connection.
    pub(crate) async fn shake_hands(files: CertificateFiles, host: &str, stream: TcpStream) -> Result<(Source, Sink)> {
        let name = ServerName::try_from(host.to_owned()).map_err(|why| {
            Error::config(format!("{host:?} is no name that a certificate could be for")).with_source(why)
        })?;
        // On a thread that may wait for a disk.
        let making = tokio::task::spawn_blocking(move || config(&files));
        let config = making.await.map_err(|error| Error::config("TLS can't be set up").with_source(error))??;
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(unreached)?;
        let (source, sink) = tokio::io::split(stream);
        Ok((Source(source), Sink(tokio::sync::Mutex::new(sink))))
    }

    fn config(files: &CertificateFiles) -> Result<ClientConfig> {
        // The provider is named, so that another one elsewhere in the program makes no difference.
        let config = ClientConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|why| Error::config("TLS can't be set up").with_source(why))?
            .with_root_certificates(authorities(files.ca.as_deref())?);
        Ok(match &files.own {
            Some(own) => {
                let unusable = |why: &dyn fmt::Display| CertificateFiles::unusable("key", &own.key, why);
                let key = PrivateKeyDer::from_pem_file(&own.key).map_err(|why| unusable(&why))?;
                config.with_client_auth_cert(certificates("cert", &own.cert)?, key).map_err(|why| unusable(&why))?
            }
            None => config.with_no_client_auth(),
        })
    }

    fn authorities(ca: Option<&Path>) -> Result<RootCertStore> {
        let mut trusted = RootCertStore::empty();
        if let Some(file) = ca {
            for certificate in certificates("ca", file)? {
                trusted.add(certificate).map_err(|why| CertificateFiles::unusable("ca", file, why))?;
            }
            return Ok(trusted);
        }
        // One spoiled certificate of the system is no reason to trust none of the others.
        trusted.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if trusted.is_empty() { Err(CertificateFiles::none_of_the_system()) } else { Ok(trusted) }
    }

    fn certificates(option: &str, file: &Path) -> Result<Vec<CertificateDer<'static>>> {
        let unusable = |why: &dyn fmt::Display| CertificateFiles::unusable(option, file, why);
        let all = CertificateDer::pem_file_iter(file).map_err(|why| unusable(&why))?;
        let all: Vec<_> = all.collect::<std::result::Result<_, _>>().map_err(|why| unusable(&why))?;
        if all.is_empty() {
            return Err(unusable(&"there is no certificate in it"));
        }
        Ok(all)
    }
}

/// Without the feature, reading the options has refused `rediss://` already.
#[cfg(not(feature = "tls"))]
mod without {
    use std::convert::Infallible;
    use std::io;

    use tokio::net::TcpStream;
    use tooz_core::driver::CertificateFiles;
    use tooz_core::{Error, Result};

    pub(crate) struct Source(Infallible);

    pub(crate) struct Sink(Infallible);

    impl Source {
        #[allow(clippy::unused_async)]
        pub(crate) async fn read(&mut self, _into: &mut Vec<u8>) -> io::Result<usize> {
            match self.0 {}
        }
    }

    impl Sink {
        #[allow(clippy::unused_async)]
        pub(crate) async fn write_all(&self, _bytes: &[u8]) -> io::Result<()> {
            match self.0 {}
        }
    }

    #[allow(clippy::unused_async)]
    pub(crate) async fn shake_hands(
        _files: CertificateFiles,
        _host: &str,
        _stream: TcpStream,
    ) -> Result<(Source, Sink)> {
        Err(Error::unsupported("TLS"))
    }
}
