//! One connection: requests go out from the thread that asks, in one write each, and answers come in the same order. It never reconnects.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::{Notify, oneshot, watch};
use tokio::time::{Instant, sleep, timeout_at};
use tooz_core::driver::Mutex;
use tooz_core::{Error, Result};

use crate::error::{cut, cut_before, gone, is_of_connection, of_server, silent};
use crate::options::Settings;
use crate::reply::{Batch, Parser, Reply};
use crate::wire::{self, Sink, Source};

/// How long an answer over TLS is waited for before the server is reminded.
const NUDGE: Duration = Duration::from_millis(50);

/// How long what the server has said before it closed is waited for, when nothing can be written any more.
const LAST_WORDS: Duration = Duration::from_millis(200);

pub(crate) struct Connection {
    /// Versions of values count on one connection alone; this tells connections apart.
    pub(crate) epoch: u64,
    sink: Sink,
    outgoing: Mutex<Outgoing>,
    /// There is something that could not be written at once.
    more: Notify,
    /// How much has come.
    heard: AtomicU64,
    /// What the server has said of the connection as a whole, and not of a command.
    refusal: OnceLock<String>,
    /// By what it ended.
    ended: watch::Sender<Option<Error>>,
}

#[derive(Default)]
struct Outgoing {
    /// What was asked, in the order in which it will be answered.
    pending: VecDeque<Pending>,
    unsent: Vec<u8>,
    /// Whether the task behind the connection is writing: all that comes goes behind that.
    is_writing: bool,
    has_ended: bool,
}

struct Pending {
    commands: usize,
    replies: Vec<Reply>,
    answer: oneshot::Sender<Vec<Reply>>,
}

/// A connection that ends with this, also where what looks at it is given up half-way: the tasks behind a connection would go on for ever.
pub(crate) struct TrialConnection(Option<Arc<Connection>>);

impl TrialConnection {
    pub(crate) fn of(connection: Arc<Connection>) -> Self {
        TrialConnection(Some(connection))
    }

    /// It is good, and another ends it.
    pub(crate) fn passed(mut self) {
        self.0 = None;
    }
}

impl Drop for TrialConnection {
    fn drop(&mut self) {
        if let Some(connection) = &self.0 {
            connection.end();
        }
    }
}

impl Connection {
    /// Connects, at most until then.
    pub(crate) async fn open(settings: &Settings, epoch: u64, deadline: Instant) -> Result<Arc<Self>> {
        Self::open_by(settings, None, epoch, deadline).await
    }

    /// Connects by that address.
    pub(crate) async fn open_by(
        settings: &Settings,
        address: Option<SocketAddr>,
        epoch: u64,
        deadline: Instant,
    ) -> Result<Arc<Self>> {
        let (source, sink) = timeout_at(deadline, wire::connect(settings, address)).await.map_err(|_| silent())??;
        let connection = Arc::new(Connection {
            epoch,
            sink,
            outgoing: Mutex::default(),
            more: Notify::new(),
            heard: AtomicU64::new(0),
            refusal: OnceLock::new(),
            ended: watch::Sender::default(),
        });
        // Both end with the connection, and its owner ends that.
        tokio::spawn(Arc::clone(&connection).listen(source));
        tokio::spawn(Arc::clone(&connection).write());
        if connection.sink.is_encrypted() {
            tokio::spawn(Arc::clone(&connection).nudge());
        }
        Ok(connection)
    }

    /// Asks, and answers what is answered to each of the commands. What was not answered may have been done.
    pub(crate) async fn run(&self, batch: &Batch, deadline: Instant) -> Result<Vec<Reply>> {
        let answer = self.send(batch)?;
        let heard = self.heard.load(Ordering::Acquire);
        match timeout_at(deadline, answer).await {
            Ok(Ok(replies)) => Ok(replies),
            Ok(Err(_)) => Err(self.refused().unwrap_or_else(cut)),
            Err(_) => {
                if self.heard.load(Ordering::Acquire) == heard {
                    // The other end may be gone.
                    self.end_by(silent());
                }
                Err(silent())
            }
        }
    }

    /// Why the server does not serve this connection at all, if it has said so.
    fn refused(&self) -> Option<Error> {
        self.refusal.get().map(|said| of_server(said))
    }

    /// Writes what there is room for, here and now; the order of the writes is that of the answers.
    fn send(&self, batch: &Batch) -> Result<oneshot::Receiver<Vec<Reply>>> {
        let (answer, receiver) = oneshot::channel();
        let mut outgoing = self.outgoing.lock();
        if outgoing.has_ended {
            return Err(self.refused().unwrap_or_else(cut_before));
        }
        let replies = Vec::with_capacity(batch.commands);
        outgoing.pending.push_back(Pending { commands: batch.commands, replies, answer });
        let written = if outgoing.is_writing { 0 } else { self.sink.try_write(&batch.text) };
        if written < batch.text.len() {
            outgoing.unsent.extend_from_slice(&batch.text[written..]);
            outgoing.is_writing = true;
            self.more.notify_one();
        }
        Ok(receiver)
    }

    /// Writes what could not be written at once.
    async fn write(self: Arc<Self>) {
        let mut ended = self.ended.subscribe();
        let writing = async {
            loop {
                self.more.notified().await;
                loop {
                    let unsent = {
                        let mut outgoing = self.outgoing.lock();
                        outgoing.is_writing = !outgoing.unsent.is_empty();
                        std::mem::take(&mut outgoing.unsent)
                    };
                    if unsent.is_empty() {
                        break;
                    }
                    if self.sink.write_all(&unsent).await.is_err() {
                        return;
                    }
                }
            }
        };
        let writing = async {
            writing.await;
            sleep(LAST_WORDS).await;
        };
        tokio::select! {
            () = writing => self.end(),
            _ = ended.wait_for(Option::is_some) => {}
        }
    }

    /// Servers up to 1.6.18 and later do not see what they have decrypted and not yet read, more than 16 KB in one piece say, before something more
    /// comes: so something does, as long as an answer is missing.
    async fn nudge(self: Arc<Self>) {
        let mut ended = self.ended.subscribe();
        let nudging = async {
            let mut heard = 0;
            loop {
                sleep(NUDGE).await;
                let before = std::mem::replace(&mut heard, self.heard.load(Ordering::Acquire));
                if before == heard && !self.outgoing.lock().pending.is_empty() {
                    // The answer is of no interest.
                    let _ = self.send(&Batch::default().nothing());
                }
            }
        };
        tokio::select! {
            () = nudging => {}
            _ = ended.wait_for(Option::is_some) => {}
        }
    }

    /// Reads until the connection ends.
    async fn listen(self: Arc<Self>, mut source: Source) {
        let mut ended = self.ended.subscribe();
        let mut parser = Parser::default();
        let listening = async {
            let mut piece = vec![0; 64 * 1024];
            loop {
                let Ok(length @ 1..) = source.read(&mut piece).await else { return };
                self.heard.fetch_add(length as u64, Ordering::AcqRel);
                parser.take(&piece[..length]);
                if self.deliver(&mut parser).is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            () = listening => self.end(),
            _ = ended.wait_for(Option::is_some) => {}
        }
    }

    fn deliver(&self, parser: &mut Parser) -> Result<()> {
        while let Some(reply) = parser.next()? {
            // Such a server answers no command, or not each: what was asked would wait for ever.
            if let Reply::Refused(said) = &reply
                && is_of_connection(said)
            {
                let _ = self.refusal.set(said.clone());
                return Err(of_server(said));
            }
            let whole = {
                let mut outgoing = self.outgoing.lock();
                // What was not asked for can't be told from the answer to what comes next.
                let pending = outgoing.pending.front_mut().ok_or_else(cut)?;
                pending.replies.push(reply);
                (pending.replies.len() == pending.commands).then(|| outgoing.pending.pop_front()).flatten()
            };
            if let Some(pending) = whole {
                // A caller that gave up waiting does not hear it.
                let _ = pending.answer.send(pending.replies);
            }
        }
        Ok(())
    }

    /// Ends it: what is under way fails, and so does all that comes.
    pub(crate) fn end(&self) {
        self.end_by(self.refused().unwrap_or_else(gone));
    }

    fn end_by(&self, why: Error) {
        let pending = {
            let mut outgoing = self.outgoing.lock();
            outgoing.has_ended = true;
            std::mem::take(&mut outgoing.pending)
        };
        self.ended.send_if_modified(|ended| {
            let is_first = ended.is_none();
            ended.get_or_insert(why);
            is_first
        });
        drop(pending);
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended.borrow().is_some()
    }

    /// Waits for its end, and answers by what it came.
    ///
    /// # Cancel safety
    /// Dropping it loses nothing.
    pub(crate) async fn ended(&self) -> Error {
        let mut ended = self.ended.subscribe();
        ended.wait_for(Option::is_some).await.ok().and_then(|by| by.clone()).unwrap_or_else(gone)
    }
}
