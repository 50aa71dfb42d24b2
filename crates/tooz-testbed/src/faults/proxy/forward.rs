//! What goes through a connection: for each way a thread that reads and one that writes, so that a delay keeps order
//! and throughput, and a connection that is held can still be heard ending.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use super::connection::Connection;
use super::faults::Way;
use super::shared::{ForwardingEnd, Shared};
use super::swallow::Swallow;

/// How many pieces may be on their way. Beyond that the sender's own buffers fill up, as with any slow network.
const ON_THE_WAY: usize = 1024;
const PIECE: usize = 64 * 1024;

/// How much of what was sent is kept, for a pattern that comes in two pieces.
const TAIL: usize = 4096;

const CONNECT_PATIENCE: Duration = Duration::from_secs(5);

/// Between two attempts to reach a server that does not listen yet.
const BREATHER: Duration = Duration::from_millis(10);

/// What a reading thread hands to the writing one.
enum Piece {
    Bytes(Vec<u8>, Instant),
    /// The server's answer, which is gone.
    Swallowed(Swallow),
    /// The sender will send no more.
    End(Instant),
    /// The sender's side is broken.
    Broken(Instant),
}

/// Runs a connection that was accepted. Returns early: its threads do the rest.
pub(super) fn serve(shared: &Arc<Shared>, connection: &Arc<Connection>) {
    if shared.wait_to_connect(connection).is_err() {
        return;
    }
    if !connect(shared).is_ok_and(|server| connection.add_server(server)) {
        // If it was reset while it was being made, the new half has to hear of it too.
        return connection.die();
    }
    for way in [Way::ToServer, Way::ToClient] {
        let (sender, receiver) = sync_channel(ON_THE_WAY);
        let reading = Arc::clone(connection);
        let (writing, writer_shared) = (Arc::clone(connection), Arc::clone(shared));
        let reader = thread::Builder::new().name("proxy reads".to_owned()).spawn(move || read(&reading, way, &sender));
        let writer = thread::Builder::new().name("proxy writes".to_owned()).spawn(move || {
            if write(&writer_shared, &writing, way, &receiver).is_err() {
                writing.die();
                writer_shared.wake();
            }
        });
        if reader.is_err() || writer.is_err() {
            connection.die();
            shared.wake();
        }
    }
}

/// Connects to the server, which may be just about to listen.
fn connect(shared: &Shared) -> io::Result<TcpStream> {
    let end = Instant::now() + shared.patience.get().copied().unwrap_or_default();
    loop {
        let connected = TcpStream::connect_timeout(&shared.upstream, CONNECT_PATIENCE);
        if connected.is_ok() || Instant::now() >= end {
            return connected;
        }
        thread::sleep(BREATHER);
    }
}

/// Reads until the end. What it returns for is in the last piece.
fn read(connection: &Connection, way: Way, pieces: &SyncSender<Piece>) {
    let Some((mut from, _)) = connection.ends(way) else { return };
    let mut buffer = vec![0; PIECE];
    let mut swallowing = false;
    loop {
        let read = from.read(&mut buffer);
        let now = Instant::now();
        let piece = match read {
            Ok(0) => Piece::End(now),
            Ok(_) if swallowing => continue,
            Ok(length) => match connection.swallow().filter(|_| way == Way::ToClient) {
                Some(swallow) => {
                    swallowing = true;
                    Piece::Swallowed(swallow)
                }
                None => Piece::Bytes(buffer[..length].to_vec(), now),
            },
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(_) => Piece::Broken(now),
        };
        let last = matches!(piece, Piece::End(_) | Piece::Broken(_));
        if pieces.send(piece).is_err() || last {
            return;
        }
    }
}

/// Writes until the end. An error: the connection is to be reset, if it is not yet.
fn write(shared: &Shared, connection: &Connection, way: Way, pieces: &Receiver<Piece>) -> Result<(), ForwardingEnd> {
    let (_, to) = connection.ends(way).ok_or(ForwardingEnd)?;
    let mut tail = Vec::new();
    let mut doors = shared.doors.get().filter(|_| way == Way::ToServer);
    for piece in pieces {
        match piece {
            Piece::Bytes(mut bytes, came) => {
                if let Some(doors) = doors.take() {
                    doors.rename(&mut bytes);
                }
                if way == Way::ToServer {
                    // Once these bytes may go, and before they do: the answer can be here in no time.
                    let permit = shared.permit(connection, way, came)?;
                    if let Some(swallow) = permit.take_swallow(&tail, &bytes) {
                        connection.swallow_next(swallow);
                    }
                    tail.extend_from_slice(&bytes);
                    tail.drain(..tail.len().saturating_sub(TAIL));
                }
                write_all(shared, connection, way, came, &bytes, to)?;
            }
            Piece::Swallowed(swallow) => {
                swallow.tell();
                shared.hang(connection, swallow.hang());
                return Err(ForwardingEnd);
            }
            Piece::End(came) => {
                let _permit = shared.permit(connection, way, came)?;
                let _ = to.shutdown(Shutdown::Write);
                return Ok(());
            }
            Piece::Broken(came) => {
                let _permit = shared.permit(connection, way, came)?;
                return Err(ForwardingEnd);
            }
        }
    }
    Ok(())
}

fn write_all(
    shared: &Shared,
    connection: &Connection,
    way: Way,
    came: Instant,
    bytes: &[u8],
    mut to: &TcpStream,
) -> Result<(), ForwardingEnd> {
    let mut rest = bytes;
    while !rest.is_empty() {
        let mut failed = false;
        let permit = shared.permit(connection, way, came)?;
        let written = permit.pass(rest.len(), |allowed| match to.write(&rest[..allowed]) {
            Ok(written) => written,
            Err(error) => {
                // The first two: no room right now.
                failed = !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted);
                0
            }
        })?;
        if failed {
            return Err(ForwardingEnd);
        }
        rest = &rest[written..];
    }
    Ok(())
}
