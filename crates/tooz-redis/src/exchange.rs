//! What goes over one connection: requests go out from the thread that asks, replies come back in the same order, and pushes beside them.
//!
//! | who | does |
//! |---|---|
//! | the thread that asks | stands its request in line and writes it, as far as there is room |
//! | the writer, a task | writes what there was no room for; as long as it is at it, all that comes goes behind that |
//! | the reader, a task | gives each reply to the first in line, and each push to the one who listens |
//! | the watchdog, a task | ends the connection when a request has not been answered in its time |
//!
//! The line and the order of the writes are kept under one lock, so that one is the other.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, broadcast, oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until};
use tooz_core::driver::Mutex;
use tooz_core::{Error, Outcome, Result};

use crate::error::{cut, cut_before, failed, gone, of_server, silent, strange};
use crate::request::{Awaited, Request};
use crate::value::{Parser, Value};
use crate::wire::{Sink, Source};

/// How many pushes wait for the task that reads them before the oldest is lost; what is lost is asked for again.
const PUSHES: usize = 4096;

/// How long what the server has said before it closed is waited for, when nothing can be written any more.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// What was published on a channel.
#[derive(Clone, Debug)]
pub(crate) struct Publication {
    pub(crate) channel: String,
    pub(crate) text: String,
}

/// The replies to one request. The usual one is alone, and takes no list.
#[derive(Debug, Default)]
pub(crate) struct Replies {
    pub(crate) first: Option<Value>,
    pub(crate) others: Vec<Value>,
}

pub(crate) struct Exchange {
    state: Mutex<State>,
    /// The longest that a request takes.
    limit: Duration,
    /// There is something that could not be written at once.
    more: Notify,
    /// A request has less time than the watchdog has thought.
    sooner: Notify,
    /// By what it ended.
    ended: watch::Sender<Option<Error>>,
    pushes: broadcast::Sender<Publication>,
}

struct State {
    /// What was asked, in the order in which it will be answered.
    asked: VecDeque<PendingRequest>,
    /// Where to write; gone when the connection has ended.
    sink: Option<Arc<Sink>>,
    unsent: Vec<u8>,
    /// Whether the writer is at it.
    is_writing: bool,
    /// When the watchdog looks next: never later than the first request in line is late.
    next_look: Instant,
    /// Why the connection has ended, if it was told.
    reason: Option<Error>,
}

struct PendingRequest {
    awaited: Awaited,
    replies: Replies,
    deadline: Instant,
    answer: oneshot::Sender<Result<Replies>>,
}

impl Exchange {
    /// Begins, in the present runtime.
    pub(crate) fn start(source: Source, sink: Sink, limit: Duration) -> Arc<Self> {
        let state = State {
            asked: VecDeque::new(),
            sink: Some(Arc::new(sink)),
            unsent: Vec::new(),
            is_writing: false,
            next_look: Instant::now() + limit,
            reason: None,
        };
        let exchange = Arc::new(Exchange {
            state: Mutex::new(state),
            limit,
            more: Notify::new(),
            sooner: Notify::new(),
            ended: watch::Sender::default(),
            pushes: broadcast::Sender::new(PUSHES),
        });
        // All three end with the connection, and its owner ends that.
        tokio::spawn(Arc::clone(&exchange).read(source));
        tokio::spawn(Arc::clone(&exchange).write());
        tokio::spawn(Arc::clone(&exchange).watch());
        exchange
    }

    /// What is pushed from now on.
    pub(crate) fn pushes(&self) -> broadcast::Receiver<Publication> {
        self.pushes.subscribe()
    }

    /// Asks, and waits for the answer. A request that is not answered in time ends the connection: the server may be frozen, and what is late
    /// must not be mistaken for the answer to something else.
    pub(crate) async fn ask(&self, request: Request, deadline: Instant) -> Result<Replies> {
        let answer = self.send(&request, deadline)?;
        drop(request);
        answer.await.unwrap_or_else(|_| Err(cut()))
    }

    /// Stands in line, and writes what there is room for, here and now.
    fn send(&self, request: &Request, deadline: Instant) -> Result<oneshot::Receiver<Result<Replies>>> {
        let (answer, receiver) = oneshot::channel();
        let mut state = self.state.lock();
        let Some(sink) = &state.sink else {
            return Err(state.reason.clone().map_or_else(cut_before, |why| why.with_outcome(Outcome::NotApplied)));
        };
        let written = if state.is_writing { 0 } else { sink.try_write(&request.bytes) };
        state.asked.push_back(PendingRequest {
            awaited: request.awaited,
            replies: Replies::default(),
            deadline,
            answer,
        });
        let unsent = &request.bytes[written..];
        let is_left = !unsent.is_empty();
        if is_left {
            state.unsent.extend_from_slice(unsent);
            state.is_writing = true;
        }
        let is_sooner = deadline < state.next_look;
        if is_sooner {
            state.next_look = deadline;
        }
        drop(state);
        if is_left {
            self.more.notify_one();
        }
        if is_sooner {
            self.sooner.notify_one();
        }
        Ok(receiver)
    }

    /// Writes what could not be written at once.
    async fn write(self: Arc<Self>) {
        let mut ended = self.ended.subscribe();
        let writing = async {
            let error = loop {
                self.more.notified().await;
                if let Err(error) = self.write_the_rest().await {
                    break error;
                }
            };
            // The reader may find out more.
            sleep(LAST_WORDS).await;
            self.end_for(&failed(error));
        };
        tokio::select! {
            () = writing => {}
            _ = ended.wait_for(Option::is_some) => {}
        }
    }

    async fn write_the_rest(&self) -> std::io::Result<()> {
        loop {
            let (unsent, sink) = {
                let mut state = self.state.lock();
                state.is_writing = !state.unsent.is_empty();
                (std::mem::take(&mut state.unsent), state.sink.clone())
            };
            let Some(sink) = sink.filter(|_| !unsent.is_empty()) else { return Ok(()) };
            sink.write_all(&unsent).await?;
        }
    }

    /// Reads until the connection ends.
    async fn read(self: Arc<Self>, mut source: Source) {
        let mut ended = self.ended.subscribe();
        let mut parser = Parser::default();
        let reading = async {
            loop {
                match source.read(parser.room()).await {
                    Ok(0) => return self.end(),
                    Ok(_) => {}
                    Err(error) => return self.end_for(&failed(error)),
                }
                if let Err(error) = self.deliver(&mut parser) {
                    return self.end_for(&error);
                }
            }
        };
        tokio::select! {
            () = reading => {}
            _ = ended.wait_for(Option::is_some) => {}
        }
    }

    /// Gives all that has come to whom it is for.
    fn deliver(&self, parser: &mut Parser) -> Result<()> {
        while let Some(value) = parser.next()? {
            match value {
                Value::Push(parts) => self.push(parts),
                reply => self.reply(reply)?,
            }
        }
        Ok(())
    }

    fn push(&self, parts: Vec<Value>) {
        let mut texts = parts.iter().map(Value::as_string);
        match texts.next().flatten().as_deref() {
            Some("message") => {
                // What is no text is no message of ours; and the one who listens may have gone.
                if let (Some(Some(channel)), Some(Some(text))) = (texts.next(), texts.next()) {
                    let _ = self.pushes.send(Publication { channel, text });
                }
            }
            Some("subscribe" | "unsubscribe") => {
                // One that was not asked for takes no reply's place.
                let _ = self.answer(Value::Push(parts), |awaited| match awaited {
                    Awaited::Pushes(left) => Some(left),
                    Awaited::Replies(_) => None,
                });
            }
            _ => {}
        }
    }

    fn reply(&self, reply: Value) -> Result<()> {
        let says_no = matches!(reply, Value::Error(_));
        self.answer(reply, |awaited| match awaited {
            Awaited::Replies(left) => Some(left),
            // Refused as a whole, by one word.
            Awaited::Pushes(left) if says_no => {
                *left = 1;
                Some(left)
            }
            Awaited::Pushes(_) => None,
        })
    }

    /// Gives a value to the first in line, where `left` says how many of its kind that one waits for.
    fn answer(&self, value: Value, left: impl FnOnce(&mut Awaited) -> Option<&mut usize>) -> Result<()> {
        let done = {
            let mut state = self.state.lock();
            // A server that refuses a connection says so unasked.
            let Some(asked) = state.asked.front_mut() else { return Err(unasked(value)) };
            let Some(left) = left(&mut asked.awaited) else { return Err(unasked(value)) };
            *left = left.saturating_sub(1);
            let is_last = *left == 0;
            match &asked.replies.first {
                None => asked.replies.first = Some(value),
                Some(_) => asked.replies.others.push(value),
            }
            is_last.then(|| state.asked.pop_front()).flatten()
        };
        if let Some(done) = done {
            // The one who has asked may have gone.
            let _ = done.answer.send(Ok(done.replies));
        }
        Ok(())
    }

    /// Ends the connection for a request that is late. Each has a deadline of its own, and no timer: this looks when the first of them may be late.
    async fn watch(self: Arc<Self>) {
        let mut ended = self.ended.subscribe();
        let watching = async {
            loop {
                let next_look = self.state.lock().next_look;
                tokio::select! {
                    biased;
                    () = self.sooner.notified() => continue,
                    () = sleep_until(next_look) => {}
                }
                if self.is_late() {
                    return self.end();
                }
            }
        };
        tokio::select! {
            () = watching => {}
            _ = ended.wait_for(Option::is_some) => {}
        }
    }

    /// Whether a request is late by now; if not, says when to look again. What is asked meanwhile has its whole time, or says so.
    fn is_late(&self) -> bool {
        let now = Instant::now();
        let mut state = self.state.lock();
        let first = state.asked.iter().map(|asked| asked.deadline).min();
        state.next_look = first.map_or(now + self.limit, |first| first.min(now + self.limit));
        first.is_some_and(|first| first <= now)
    }

    /// Ends the connection: what is under way fails, and so does all that comes.
    pub(crate) fn end(&self) {
        self.end_with(None);
    }

    fn end_for(&self, reason: &Error) {
        self.end_with(Some(reason));
    }

    fn end_with(&self, reason: Option<&Error>) {
        let (asked, sink) = {
            let mut state = self.state.lock();
            let Some(sink) = state.sink.take() else { return };
            state.reason = reason.cloned();
            state.unsent = Vec::new();
            (std::mem::take(&mut state.asked), sink)
        };
        let now = Instant::now();
        let is_silent = asked.iter().any(|asked| asked.deadline <= now);
        let by = reason.cloned().unwrap_or_else(|| if is_silent { silent(self.limit) } else { gone() });
        // Before anything is told: a caller that hears of it looks for the next connection.
        self.ended.send_replace(Some(by));
        drop(sink);
        for asked in asked {
            let why = match reason {
                _ if asked.deadline <= now => silent(self.limit),
                // What was under way may have been done, whatever has ended the connection.
                Some(reason) => reason.clone().with_outcome(Outcome::Unknown),
                None => cut(),
            };
            let _ = asked.answer.send(Err(why));
        }
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended.borrow().is_some()
    }

    /// Waits for the end, and answers by what it came.
    ///
    /// # Cancel safety
    /// Dropping it loses nothing.
    pub(crate) async fn ended(&self) -> Error {
        let mut ended = self.ended.subscribe();
        ended.wait_for(Option::is_some).await.ok().and_then(|by| by.clone()).unwrap_or_else(gone)
    }
}

/// What was not asked for can't be told from the answer to what comes next.
fn unasked(value: Value) -> Error {
    match value {
        Value::Error(said) => of_server(&said),
        other => strange(other),
    }
}

#[cfg(test)]
mod tests;
