//! A door before a server: a client is let through, what it says is kept, and then its connection can be used in its place.
//!
//! So the requests that are measured are those of the driver, to the letter, on a connection that has prepared and announced all that they need.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

/// How often a passage looks whether its connection is lent.
const LOOK: Duration = Duration::from_millis(2);
/// How long an answer is waited for.
const LIMIT: Duration = Duration::from_secs(2);

/// The door, with all that went through it.
pub(crate) struct Recorder {
    address: SocketAddr,
    passages: Arc<Mutex<Vec<Arc<Passage>>>>,
}

/// One connection through the door.
pub(crate) struct Passage {
    server: TcpStream,
    asked: Mutex<Vec<u8>>,
    answered: Mutex<Vec<u8>>,
    is_lent: AtomicBool,
    /// Whether what comes from the server is left to the borrower.
    is_at_rest: AtomicBool,
}

impl Recorder {
    pub(crate) fn before(server: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let passages: Arc<Mutex<Vec<Arc<Passage>>>> = Arc::default();
        let all = Arc::clone(&passages);
        // It ends with the process: it costs nothing while no client comes.
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if let Ok(passage) = Passage::open(client, server) {
                    all.lock().unwrap_or_else(PoisonError::into_inner).push(passage);
                }
            }
        });
        Ok(Recorder { address, passages })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Forgets what was said.
    pub(crate) fn forget(&self) {
        for passage in &*self.passages.lock().unwrap_or_else(PoisonError::into_inner) {
            passage.take();
        }
    }

    /// The one connection on which something was asked since, the question, and the length of the answer; `None`: several were.
    pub(crate) fn heard(&self) -> Option<(Arc<Passage>, Vec<u8>, usize)> {
        let passages = self.passages.lock().unwrap_or_else(PoisonError::into_inner);
        let mut heard =
            passages.iter().map(|passage| (passage, passage.take())).filter(|(_, (asked, _))| !asked.is_empty());
        let (passage, (asked, answered)) = heard.next()?;
        heard.next().is_none().then(|| (Arc::clone(passage), asked, answered.len()))
    }
}

impl Passage {
    fn open(client: TcpStream, server: SocketAddr) -> Result<Arc<Self>> {
        let server = TcpStream::connect(server)?;
        server.set_nodelay(true)?;
        client.set_nodelay(true)?;
        server.set_read_timeout(Some(LOOK))?;
        let passage = Arc::new(Passage {
            server,
            asked: Mutex::default(),
            answered: Mutex::default(),
            is_lent: AtomicBool::new(false),
            is_at_rest: AtomicBool::new(false),
        });
        let (to_server, to_client) = (Arc::clone(&passage), Arc::clone(&passage));
        let mut answers_to = client.try_clone()?;
        thread::spawn(move || to_server.pass_questions(client));
        thread::spawn(move || {
            to_client.pass_answers(&mut answers_to);
            let _ = answers_to.shutdown(Shutdown::Both);
        });
        Ok(passage)
    }

    fn pass_questions(&self, mut client: TcpStream) {
        let mut piece = [0; 16 * 1024];
        while let Ok(length @ 1..) = client.read(&mut piece) {
            self.asked.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&piece[..length]);
            if (&self.server).write_all(&piece[..length]).is_err() {
                break;
            }
        }
        let _ = self.server.shutdown(Shutdown::Both);
    }

    fn pass_answers(&self, client: &mut TcpStream) {
        let mut piece = [0; 16 * 1024];
        loop {
            while self.is_lent.load(Ordering::Acquire) {
                self.is_at_rest.store(true, Ordering::Release);
                thread::sleep(LOOK);
            }
            self.is_at_rest.store(false, Ordering::Release);
            match (&self.server).read(&mut piece) {
                Ok(length @ 1..) => {
                    self.answered.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&piece[..length]);
                    if client.write_all(&piece[..length]).is_err() {
                        return;
                    }
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Ok(_) | Err(_) => return,
            }
        }
    }

    fn take(&self) -> (Vec<u8>, Vec<u8>) {
        let take = |said: &Mutex<Vec<u8>>| std::mem::take(&mut *said.lock().unwrap_or_else(PoisonError::into_inner));
        (take(&self.asked), take(&self.answered))
    }

    /// Lends the connection: its client must ask nothing until it is given back.
    pub(crate) fn lend(&self) -> Result<()> {
        self.is_lent.store(true, Ordering::Release);
        while !self.is_at_rest.load(Ordering::Acquire) {
            thread::sleep(LOOK / 2);
        }
        Ok(self.server.set_read_timeout(Some(LIMIT))?)
    }

    pub(crate) fn give_back(&self) -> Result<()> {
        self.server.set_read_timeout(Some(LOOK))?;
        self.is_lent.store(false, Ordering::Release);
        Ok(())
    }

    /// Asks on the lent connection, as a blocking client does, and waits for an answer of that length.
    pub(crate) fn ask(&self, question: &[u8], length: usize, room: &mut Vec<u8>) -> Result<()> {
        (&self.server).write_all(question)?;
        room.resize(length, 0);
        let mut read = 0;
        while read < length {
            let piece = (&self.server)
                .read(&mut room[read..])
                .context("the answer is shorter than the one that was recorded")?;
            ensure!(piece > 0, "the server has closed the connection");
            read += piece;
        }
        Ok(())
    }
}
