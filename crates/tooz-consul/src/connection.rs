//! One connection to one agent, over which one request after the other goes; it never reconnects.
//!
//! The library wants its half of a connection polled by a task. Here no task does that: the caller polls it along with the answer, so that a request
//! leaves from the caller's own thread, and a pair of requests costs no wake of another thread on its way out. (The answer does: the socket
//! is the heart's, whose thread hears of it and wakes the caller.) The price is that no task looks at a connection between two requests:
//! that the agent has hung up is found when it is next used, which [`Connection::is_usable`] does before anything is sent.

use std::error::Error as StdError;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Waker};

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{HOST, HeaderName, HeaderValue};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::options::Agent;
use crate::tls::Tls;
use crate::wire::{ConnectError, Wire};

/// The longest answer that is read, in bytes: more than any group or queue of a reasonable size.
const LONGEST: usize = 256 << 20;

const TOKEN: HeaderName = HeaderName::from_static("x-consul-token");
const INDEX: HeaderName = HeaderName::from_static("x-consul-index");

/// What an agent answered.
#[derive(Debug)]
pub(crate) struct HttpResponse {
    pub(crate) status: u16,
    /// Of what is read: up to which index of the servers' log.
    pub(crate) index: u64,
    pub(crate) body: Bytes,
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) struct ExchangeError {
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
    /// The path by which it is repeated, if by another.
    pub(crate) again: Option<String>,
    /// Whether it is asked again after a pause where the servers have no leader, for as long as its limit allows.
    pub(crate) is_patient: bool,
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
    ) -> Result<Self, ConnectError> {
        let stream = TcpStream::connect((agent.name.as_str(), agent.port)).await.map_err(ConnectError::by)?;
        // Requests are small, and each is waited for.
        let _ = stream.set_nodelay(true);
        let wire = match tls {
            Some(tls) => tls.secure(&agent.name, stream).await?,
            None => Wire::Plain(stream),
        };
        let (sender, wire) = http1::handshake(TokioIo::new(wire)).await.map_err(ConnectError::by)?;
        let host = HeaderValue::from_str(&agent.address).map_err(ConnectError::by)?;
        let (address, wire) = (Arc::clone(&agent.address), Box::pin(wire));
        Ok(Connection { sender, wire, host, token, address, agent: number, answered: 0 })
    }

    /// Whether the agent has not hung up, as far as can be seen.
    pub(crate) fn is_usable(&mut self) -> bool {
        // No waker is needed: the next request will wait for it.
        let mut context = Context::from_waker(Waker::noop());
        self.wire.as_mut().poll(&mut context).is_pending() && self.sender.is_ready()
    }

    /// Asks. A connection of which this was dropped or failed is of no more use.
    pub(crate) async fn ask(&mut self, question: Question) -> Result<HttpResponse, ExchangeError> {
        let request = self.request(question)?;
        let Connection { sender, wire, .. } = self;
        let answering = async {
            let response = sender.send_request(request).await.map_err(ExchangeError::by)?;
            let (head, body) = response.into_parts();
            let index = head.headers.get(INDEX).and_then(|value| value.to_str().ok()?.parse().ok());
            let body = Limited::new(body, LONGEST).collect().await;
            let body = body.map_err(|cause| ExchangeError { cause, was_sent: true })?.to_bytes();
            Ok(HttpResponse { status: head.status.as_u16(), index: index.unwrap_or(0), body })
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

    fn request(&self, question: Question) -> Result<Request<Full<Bytes>>, ExchangeError> {
        let mut request = Request::builder().method(question.method).uri(question.path).header(HOST, self.host.clone());
        if let Some(token) = &self.token {
            request = request.header(TOKEN, token.clone());
        }
        request
            .body(Full::new(question.body))
            .map_err(|cause| ExchangeError { cause: Box::new(cause), was_sent: false })
    }
}

impl ExchangeError {
    fn by(cause: hyper::Error) -> Self {
        // The library's word for what it had not begun to send.
        let was_sent = !cause.is_canceled();
        ExchangeError { cause: Box::new(cause), was_sent }
    }
}
