//! TLS for `rediss://`: rustls with ring, trusting the system's authorities or those of `ca`. The files are read for each connection,
//! since certificates are renewed.

#[cfg(feature = "tls")]
pub(crate) use with::{Sink, Source, shake_hands};
#[cfg(not(feature = "tls"))]
pub(crate) use without::{Sink, Source, shake_hands};

#[cfg(feature = "tls")]
mod with {
    use std::io;
    use std::sync::Arc;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
    use tokio::net::TcpStream;
    use tokio_rustls::TlsConnector;
    use tokio_rustls::client::TlsStream;
    use tokio_rustls::rustls::pki_types::ServerName;
    use tooz_core::driver::{CertificateFiles, read_certificates};
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
        let stream = TlsConnector::from(Arc::new(read_certificates(&files).await?))
            .connect(name, stream)
            .await
            .map_err(unreached)?;
        let (source, sink) = tokio::io::split(stream);
        Ok((Source(source), Sink(tokio::sync::Mutex::new(sink))))
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
