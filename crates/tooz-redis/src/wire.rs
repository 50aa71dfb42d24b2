//! What a connection runs over: TCP, a Unix socket, or TLS.

use std::io;
use std::path::PathBuf;

use tokio::io::AsyncReadExt;
use tokio::net::{TcpStream, UnixStream, tcp, unix};
use tooz_core::Result;

use crate::error::unreached;
use crate::options::{Address, Encryption};
use crate::tls;

/// Where a server listens.
#[derive(Clone, Debug)]
pub(crate) enum ServerAddress {
    Host(Address),
    Socket(PathBuf),
}

/// Where answers come from.
pub(crate) enum Source {
    Tcp(tcp::OwnedReadHalf),
    Unix(unix::OwnedReadHalf),
    Tls(tls::Source),
}

/// Where requests go.
pub(crate) enum Sink {
    Tcp(tcp::OwnedWriteHalf),
    Unix(unix::OwnedWriteHalf),
    /// What is encrypted is written by the task behind the connection.
    Tls(tls::Sink),
}

/// Connects: by the first that answers of the addresses that the host has now.
pub(crate) async fn connect(place: &ServerAddress, encryption: &Encryption) -> Result<(Source, Sink)> {
    match place {
        ServerAddress::Socket(path) => {
            let (source, sink) = UnixStream::connect(path).await.map_err(unreached)?.into_split();
            Ok((Source::Unix(source), Sink::Unix(sink)))
        }
        ServerAddress::Host(Address { host, port }) => {
            let stream = TcpStream::connect((host.as_str(), *port)).await.map_err(unreached)?;
            stream.set_nodelay(true).map_err(unreached)?;
            if let Encryption::Tls(files) = encryption {
                let (source, sink) = tls::shake_hands(files.clone(), host, stream).await?;
                return Ok((Source::Tls(source), Sink::Tls(sink)));
            }
            let (source, sink) = stream.into_split();
            Ok((Source::Tcp(source), Sink::Tcp(sink)))
        }
    }
}

impl Source {
    /// Reads what there is, behind what stands there; zero at the end.
    pub(crate) async fn read(&mut self, into: &mut Vec<u8>) -> io::Result<usize> {
        match self {
            Source::Tcp(stream) => stream.read_buf(into).await,
            Source::Unix(stream) => stream.read_buf(into).await,
            Source::Tls(source) => source.read(into).await,
        }
    }
}

impl Sink {
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
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                written => bytes = &bytes[written?..],
            }
        }
        Ok(())
    }
}
