//! What the bytes of a connection go over, with TLS or without, and why there is none.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// What the bytes go over.
pub(crate) enum Wire {
    Plain(TcpStream),
    #[cfg(feature = "tls")]
    Secured(Box<tokio_rustls::client::TlsStream<TcpStream>>),
}

macro_rules! over {
    ($wire:expr, $name:ident => $call:expr) => {
        match $wire.get_mut() {
            Wire::Plain(stream) => {
                let $name = Pin::new(stream);
                $call
            }
            #[cfg(feature = "tls")]
            Wire::Secured(stream) => {
                let $name = Pin::new(stream.as_mut());
                $call
            }
        }
    };
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        over!(self, stream => stream.poll_read(context, bytes))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        over!(self, stream => stream.poll_write(context, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        over!(self, stream => stream.poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        over!(self, stream => stream.poll_shutdown(context))
    }
}

/// Why there is no connection: what was to be sent over it was not.
#[derive(Debug)]
pub(crate) struct ConnectError(pub(crate) Box<dyn StdError + Send + Sync>);

impl ConnectError {
    pub(crate) fn by(cause: impl StdError + Send + Sync + 'static) -> Self {
        ConnectError(Box::new(cause))
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl StdError for ConnectError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source()
    }
}

impl From<tooz_core::Error> for ConnectError {
    fn from(error: tooz_core::Error) -> Self {
        ConnectError(Box::new(error))
    }
}
