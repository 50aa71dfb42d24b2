//! One connection to one agent, over which one request after the other goes; it never reconnects.
//!
//! The library wants its half of a connection polled by somebody. Here no task does that: whoever asks polls it along with the answer, so that a request
//! leaves from the caller's own thread, and a pair of requests costs no wake of another thread on its way out. (The answer does: the socket
//! is the heart's, whose thread hears of it and wakes the caller.) The price is that nobody looks at a connection between two requests:
//! that the agent has hung up is found when it is next used, which [`Connection::is_usable`] does before anything is sent.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{HOST, HeaderName, HeaderValue};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::options::Agent;
use crate::tls::Tls;

/// The longest answer that is read, in bytes: more than any group or queue of a reasonable size.
const LONGEST: usize = 256 << 20;

const TOKEN: HeaderName = HeaderName::from_static("x-consul-token");
const INDEX: HeaderName = HeaderName::from_static("x-consul-index");

/// Why there is no connection: what was to be sent over it was not.
#[derive(Debug)]
pub(crate) struct Unreached(pub(crate) Box<dyn StdError + Send + Sync>);

impl Unreached {
    pub(crate) fn by(cause: impl StdError + Send + Sync + 'static) -> Self {
        Unreached(Box::new(cause))
    }
}

impl fmt::Display for Unreached {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl StdError for Unreached {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source()
    }
}

impl From<tooz_core::Error> for Unreached {
    fn from(error: tooz_core::Error) -> Self {
        Unreached(Box::new(error))
    }
}

/// What an agent answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Of what is read: up to which index of the servers' log.
    pub(crate) index: u64,
    pub(crate) body: Bytes,
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) struct Broken {
    pub(crate) cause: Box<dyn StdError + Send + Sync>,
    /// Whether the request may have reached the agent.
    pub(crate) was_sent: bool,
}

/// What is asked of an agent.
#[derive(Clone)]
pub(crate) struct Question {
    pub(crate) method: Method,
    /// The path with its query.
    pub(crate) path: String,
    pub(crate) body: Bytes,
}

/// One connection.
pub(crate) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    wire: Pin<Box<http1::Connection<TokioIo<Wire>, Full<Bytes>>>>,
    /// What every request carries.
    host: HeaderValue,
    token: Option<HeaderValue>,
    /// `host:port`, for messages.
    pub(crate) address: Arc<str>,
    /// To which of the agents it leads.
    pub(crate) agent: usize,
    /// How many requests were answered over it.
    pub(crate) answered: u64,
}

impl Connection {
    /// Connects to that agent, which is the one with that number.
    pub(crate) async fn open(
        number: usize,
        agent: &Agent,
        tls: Option<&Tls>,
        token: Option<HeaderValue>,
    ) -> Result<Self, Unreached> {
        let stream = TcpStream::connect((agent.name.as_str(), agent.port)).await.map_err(Unreached::by)?;
        // Requests are small, and each is waited for.
        let _ = stream.set_nodelay(true);
        let wire = match tls {
            Some(tls) => tls.secure(&agent.name, stream).await?,
            None => Wire::Plain(stream),
        };
        let (sender, wire) = http1::handshake(TokioIo::new(wire)).await.map_err(Unreached::by)?;
        let host = HeaderValue::from_str(&agent.address).map_err(Unreached::by)?;
        let (address, wire) = (Arc::clone(&agent.address), Box::pin(wire));
        Ok(Connection { sender, wire, host, token, address, agent: number, answered: 0 })
    }

    /// Whether the agent has not hung up, as far as can be seen.
    pub(crate) fn is_usable(&mut self) -> bool {
        // Nobody waits for it: the next request will.
        let mut context = Context::from_waker(Waker::noop());
        self.wire.as_mut().poll(&mut context).is_pending() && self.sender.is_ready()
    }

    /// Asks. A connection of which this was dropped or failed is of no more use.
    pub(crate) async fn ask(&mut self, question: Question) -> Result<Answer, Broken> {
        let request = self.request(question)?;
        let Connection { sender, wire, .. } = self;
        let answering = async {
            let response = sender.send_request(request).await.map_err(Broken::by)?;
            let (head, body) = response.into_parts();
            let index = head.headers.get(INDEX).and_then(|value| value.to_str().ok()?.parse().ok());
            let body = Limited::new(body, LONGEST).collect().await;
            let body = body.map_err(|cause| Broken { cause, was_sent: true })?.to_bytes();
            Ok(Answer { status: head.status.as_u16(), index: index.unwrap_or(0), body })
        };
        tokio::pin!(answering);
        let answer = tokio::select! {
            biased;
            answer = &mut answering => answer,
            // With it everything is said that will be said: the answer, or why there is none.
            _ = wire.as_mut() => answering.await,
        }?;
        self.answered += 1;
        Ok(answer)
    }

    fn request(&self, question: Question) -> Result<Request<Full<Bytes>>, Broken> {
        let mut request = Request::builder().method(question.method).uri(question.path).header(HOST, self.host.clone());
        if let Some(token) = &self.token {
            request = request.header(TOKEN, token.clone());
        }
        request.body(Full::new(question.body)).map_err(|cause| Broken { cause: Box::new(cause), was_sent: false })
    }
}

impl Broken {
    fn by(cause: hyper::Error) -> Self {
        // The library's word for what it had not begun to send.
        let was_sent = !cause.is_canceled();
        Broken { cause: Box::new(cause), was_sent }
    }
}

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
