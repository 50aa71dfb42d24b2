//! A relay between the client library, which only makes plain TCP connections, and a server that is reached by TLS.
//!
//! It listens on the loopback interface, where every user of the machine may connect. Behind it is a connection that may have
//! been opened with this program's certificate, so it takes one connection only, and of this very process: among the process's own
//! descriptors there must be the other end of that very connection, a TCP socket with its two addresses. There are no two of those at a time.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use tokio::io::copy_bidirectional;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use crate::tls::{Stream, TlsFailure, refused};

/// A relay for one connection. It ends when this is dropped.
pub(crate) struct Relay {
    address: SocketAddr,
    task: Option<AbortHandle>,
    ended: oneshot::Receiver<TlsFailure>,
}

impl Relay {
    pub(crate) async fn start(mut secured: Stream) -> io::Result<Self> {
        // Where they can't be listed, no connection could be let in.
        drop(descriptors()?);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let (tell, ended) = oneshot::channel();
        let relaying = async move {
            let mut own = loop {
                let (stream, peer) = listener.accept().await?;
                // The kernel's lists may be long.
                let looking = tokio::task::spawn_blocking(move || is_own(peer, address));
                if looking.await.unwrap_or(false) {
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
    pub(crate) fn trouble(mut self) -> Option<TlsFailure> {
        self.ended.try_recv().ok()
    }

    /// Leaves the end to the owner of the task.
    pub(crate) fn into_task(mut self) -> Option<AbortHandle> {
        self.task.take()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.iter().for_each(AbortHandle::abort);
    }
}

/// Whether the TCP connection from `peer` to `address` is one that this process has made.
fn is_own(peer: SocketAddr, address: SocketAddr) -> bool {
    descriptors().is_ok_and(|own| own.filter(|one| ends_of(*one) == Some((peer, address))).any(is_tcp))
}

/// The numbers of this process's open files and sockets.
fn descriptors() -> io::Result<impl Iterator<Item = i32>> {
    // Linux has the first, other Unix systems the second.
    let folder = std::fs::read_dir("/proc/self/fd").or_else(|_| std::fs::read_dir("/dev/fd"))?;
    Ok(folder.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()))
}

/// The addresses of a connected socket, its own first.
#[cfg(unix)]
fn ends_of(descriptor: i32) -> Option<(SocketAddr, SocketAddr)> {
    use nix::sys::socket::{SockaddrIn, getpeername, getsockname};
    let own = getsockname::<SockaddrIn>(descriptor).ok()?;
    let other = getpeername::<SockaddrIn>(descriptor).ok()?;
    Some((SocketAddrV4::from(own).into(), SocketAddrV4::from(other).into()))
}

/// Whether a socket is one of TCP, by the kernel's list of those: a UDP socket may have the same addresses as a stranger's TCP connection.
#[cfg(target_os = "linux")]
fn is_tcp(descriptor: i32) -> bool {
    let Ok(link) = std::fs::read_link(format!("/proc/self/fd/{descriptor}")) else { return false };
    let link = link.to_string_lossy();
    let Some(inode) = link.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']')) else { return false };
    // sl local_address rem_address st queues tr:tm->when retrnsmt uid timeout inode …
    std::fs::read_to_string("/proc/self/net/tcp")
        .is_ok_and(|all| all.lines().any(|line| line.split_whitespace().nth(9) == Some(inode)))
}

/// Elsewhere the two addresses have to do.
#[cfg(not(target_os = "linux"))]
fn is_tcp(_descriptor: i32) -> bool {
    true
}

/// The options are refused before it comes to this.
#[cfg(not(unix))]
fn ends_of(_descriptor: i32) -> Option<(SocketAddr, SocketAddr)> {
    None
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream, UdpSocket};

    use super::*;

    #[test]
    fn a_connection_of_this_process_is_known_and_another_is_not() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let client = TcpStream::connect(address).unwrap();
        let (_accepted, peer) = listener.accept().unwrap();
        assert!(is_own(peer, address));
        let elsewhere = TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(!is_own(peer, elsewhere.local_addr().unwrap()), "it is a connection to somewhere else");
        drop(client);
        assert!(!is_own(peer, address), "its address outlived it");
    }

    #[test]
    fn a_udp_socket_with_the_same_addresses_is_no_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let peer = udp.local_addr().unwrap();
        assert!(!is_own(peer, address));
        udp.connect(address).unwrap();
        assert_eq!(ends_of(std::os::fd::AsRawFd::as_raw_fd(&udp)), Some((peer, address)));
        assert!(!is_own(peer, address));
    }
}
