//! What a connection runs over: TCP, a Unix socket, or TLS.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::{TcpStream, UnixStream};
use tooz_core::Result;

use crate::addresses::addresses_of;
use crate::error::unreached;
use crate::options::{Settings, Target};
use crate::tls;

/// Where answers come from.
pub(crate) enum Source {
    Tcp(Arc<TcpStream>),
    Unix(Arc<UnixStream>),
    Tls(tls::Source),
}

/// Where requests go.
pub(crate) enum Sink {
    Tcp(Arc<TcpStream>),
    Unix(Arc<UnixStream>),
    /// What is encrypted is written by the task behind the connection.
    Tls(tls::Sink),
}

/// Connects: by that address, or by the first that answers of those that the host has now.
pub(crate) async fn connect(settings: &Settings, address: Option<SocketAddr>) -> Result<(Source, Sink)> {
    match &settings.target {
        Target::Socket(path) => {
            let stream = Arc::new(UnixStream::connect(path).await.map_err(unreached)?);
            Ok((Source::Unix(Arc::clone(&stream)), Sink::Unix(stream)))
        }
        Target::Server(host, port) => {
            let addresses = match address {
                Some(address) => vec![address],
                None => addresses_of(host, *port).await?,
            };
            let stream = TcpStream::connect(&addresses[..]).await.map_err(unreached)?;
            stream.set_nodelay(true).map_err(unreached)?;
            if let Some(files) = &settings.tls {
                let (source, sink) = tls::shake_hands(files.clone(), host, stream).await?;
                return Ok((Source::Tls(source), Sink::Tls(sink)));
            }
            let stream = Arc::new(stream);
            Ok((Source::Tcp(Arc::clone(&stream)), Sink::Tcp(stream)))
        }
    }
}

impl Source {
    /// Reads what there is; zero at the end.
    pub(crate) async fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = match self {
                Source::Tcp(stream) => {
                    stream.readable().await?;
                    stream.try_read(into)
                }
                Source::Unix(stream) => {
                    stream.readable().await?;
                    stream.try_read(into)
                }
                Source::Tls(source) => source.read(into).await,
            };
            match read {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return read,
            }
        }
    }
}

impl Sink {
    pub(crate) fn is_encrypted(&self) -> bool {
        matches!(self, Sink::Tls(_))
    }

    /// Writes what there is room for at once. An error is none yet: what reads the connection will see it.
    pub(crate) fn try_write(&self, bytes: &[u8]) -> usize {
        let written = match self {
            Sink::Tcp(stream) => stream.try_write(bytes),
            Sink::Unix(stream) => stream.try_write(bytes),
            Sink::Tls(_) => Ok(0),
        };
        written.unwrap_or(0)
    }

    /// Writes all of it. Only one task does.
    pub(crate) async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let written = match self {
                Sink::Tcp(stream) => {
                    stream.writable().await?;
                    stream.try_write(bytes)
                }
                Sink::Unix(stream) => {
                    stream.writable().await?;
                    stream.try_write(bytes)
                }
                Sink::Tls(sink) => return sink.write_all(bytes).await,
            };
            match written {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => bytes = &bytes[written?..],
            }
        }
        Ok(())
    }
}
