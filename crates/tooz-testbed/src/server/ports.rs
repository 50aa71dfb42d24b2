//! Ports that are free, and stay a server's own while it is down.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::OwnedFd;

use anyhow::{Context, Result, bail};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, setsockopt, socket, sockopt};

/// Below the range from which the kernel serves outgoing connections, so that none of those sits on the port of a
/// server that is down for a moment.
const RANGE: std::ops::Range<u16> = 10_000..32_000;

/// A port of the loopback interface that no other process gets.
///
/// The socket is bound but never listens, and allows others that say `SO_REUSEADDR`, as servers do. So the server can
/// be killed and started again on the same port with no process slipping in between, and a client that connects in the
/// meantime is refused.
#[derive(Debug)]
pub(crate) struct Port {
    address: SocketAddr,
    _socket: OwnedFd,
}

/// What one server may need: for clients, for peers, and to be asked after its health.
pub(crate) type Ports = [Port; 3];

/// Reserves the ports of one server.
pub(crate) fn three() -> Result<Ports> {
    Ok([Port::reserve()?, Port::reserve()?, Port::reserve()?])
}

impl Port {
    /// Takes one that is free.
    pub(crate) fn reserve() -> Result<Self> {
        for _ in 0..500 {
            let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, fastrand::u16(RANGE));
            let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)
                .context("cannot open a socket")?;
            if bind(std::os::fd::AsRawFd::as_raw_fd(&socket), &SockaddrIn::from(address)).is_ok() {
                // Only now: bound like this at once, it would get a port that another testbed has already taken.
                setsockopt(&socket, sockopt::ReuseAddr, &true).context("cannot share a port with a server")?;
                return Ok(Port { address: address.into(), _socket: socket });
            }
        }
        bail!("found no free port on 127.0.0.1 between {} and {} in 500 tries", RANGE.start, RANGE.end)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn a_server_can_come_and_go_on_a_reserved_port() {
        let port = Port::reserve().unwrap();
        for _ in 0..2 {
            // The standard library says SO_REUSEADDR, as every server does.
            let listener = TcpListener::bind(port.address()).unwrap();
            TcpStream::connect(port.address()).unwrap();
            drop(listener);
            assert!(TcpStream::connect(port.address()).is_err(), "no server listens");
        }
    }

    #[test]
    fn two_reservations_are_two_ports() {
        let ports: Vec<Port> = (0..50).map(|_| Port::reserve().unwrap()).collect();
        let mut numbers: Vec<u16> = ports.iter().map(|port| port.address().port()).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), 50);
    }
}
