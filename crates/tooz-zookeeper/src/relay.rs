//! A relay between the client library, which only makes plain TCP connections, and a server that is reached by TLS.
//!
//! It listens on the loopback interface, where every user of the machine may connect. Behind it is a connection that may have
//! been opened with this program's certificate, so it takes one connection only, and of this very process: the other end must
//! be a socket among the process's own descriptors.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use tokio::io::copy_bidirectional;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use crate::tls::{Refused, Stream, refused};

/// A relay for one connection. It ends when this is dropped.
pub(crate) struct Relay {
    address: SocketAddr,
    task: Option<AbortHandle>,
    ended: oneshot::Receiver<Refused>,
}

impl Relay {
    pub(crate) async fn start(mut secured: Stream) -> io::Result<Self> {
        // Where they can't be listed, nobody could be let in.
        drop(descriptors()?);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let (tell, ended) = oneshot::channel();
        let relaying = async move {
            let mut own = loop {
                let (stream, peer) = listener.accept().await?;
                if is_own(peer) {
                    break stream;
                }
            };
            drop(listener);
            own.set_nodelay(true)?;
            copy_bidirectional(&mut own, &mut secured).await
        };
        let task = tokio::spawn(async move {
            if let Err(why) = relaying.await {
                let _ = tell.send(refused(&why));
            }
        });
        Ok(Relay { address, task: Some(task.abort_handle()), ended })
    }

    /// Where the library is to connect.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Why the connection to the server has ended, if that was an error.
    pub(crate) fn trouble(mut self) -> Option<Refused> {
        self.ended.try_recv().ok()
    }

    /// Leaves the end to whoever has the task.
    pub(crate) fn into_task(mut self) -> Option<AbortHandle> {
        self.task.take()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.iter().for_each(AbortHandle::abort);
    }
}

/// Whether the socket with that address is one of this process.
fn is_own(peer: SocketAddr) -> bool {
    descriptors().is_ok_and(|own| own.filter_map(address_of).any(|address| SocketAddr::V4(address) == peer))
}

/// The numbers of this process's open files and sockets.
fn descriptors() -> io::Result<impl Iterator<Item = i32>> {
    // Linux has the first, other Unix systems the second.
    let folder = std::fs::read_dir("/proc/self/fd").or_else(|_| std::fs::read_dir("/dev/fd"))?;
    Ok(folder.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()))
}

#[cfg(unix)]
fn address_of(descriptor: i32) -> Option<SocketAddrV4> {
    use nix::sys::socket::{SockaddrIn, getsockname};
    getsockname::<SockaddrIn>(descriptor).ok().map(SocketAddrV4::from)
}

/// The options are refused before it comes to this.
#[cfg(not(unix))]
fn address_of(_descriptor: i32) -> Option<SocketAddrV4> {
    None
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_socket_of_this_process_is_known_and_another_is_not() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (_accepted, peer) = listener.accept().unwrap();
        assert!(is_own(peer));
        drop(client);
        assert!(!is_own(peer), "its address outlived it");
    }
}
