//! The inode of a socket by its two addresses: by it, `/proc` knows whose it is.

use std::fs;
use std::net::SocketAddrV4;
use std::os::fd::AsRawFd;

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

/// The inode of the socket between these two addresses, seen from the first one's end.
pub(super) fn inode(local: SocketAddrV4, remote: SocketAddrV4) -> Option<u64> {
    // The list in /proc has every socket of the machine, which are many thousands after many short connections.
    asked(local, remote).or_else(|| listed(&fs::read_to_string("/proc/net/tcp").ok()?, local, remote))
}

/// Asks the kernel for this one socket (`sock_diag(7)`). Not every kernel answers.
fn asked(local: SocketAddrV4, remote: SocketAddrV4) -> Option<u64> {
    let socket =
        socket(AddressFamily::Netlink, SockType::Datagram, SockFlag::SOCK_CLOEXEC, Some(SockProtocol::NetlinkSockDiag));
    let socket = socket.ok()?;
    // It answers at once or never.
    setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::milliseconds(100)).ok()?;
    let question = question(local, remote);
    send(socket.as_raw_fd(), &question, MsgFlags::empty()).ok()?;
    let mut answer = [0; 512];
    let length = recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty()).ok()?;
    inode_in(&answer[..length])
}

/// `struct nlmsghdr` is the head of every message.
const HEAD: usize = 16;
const BY_FAMILY: u16 = 20;
const REQUEST: u16 = 1;

/// A `struct nlmsghdr` and a `struct inet_diag_req_v2`, all in the machine's own order but ports and addresses.
fn question(local: SocketAddrV4, remote: SocketAddrV4) -> Vec<u8> {
    const LENGTH: u32 = 72;
    const IPV4: u8 = 2;
    const TCP: u8 = 6;
    let mut message = Vec::new();
    message.extend(LENGTH.to_ne_bytes());
    message.extend(BY_FAMILY.to_ne_bytes());
    message.extend(REQUEST.to_ne_bytes());
    // Sequence and port of the netlink socket: no other question is asked on this one.
    message.extend([0; 8]);
    message.extend([IPV4, TCP, 0, 0]);
    // In whatever state.
    message.extend(u32::MAX.to_ne_bytes());
    message.extend(local.port().to_be_bytes());
    message.extend(remote.port().to_be_bytes());
    for address in [local, remote] {
        message.extend(address.ip().octets());
        message.extend([0; 12]);
    }
    // Any interface, any cookie.
    message.extend([0; 4]);
    message.extend([0xff; 8]);
    message
}

/// The inode is the last field of a `struct inet_diag_msg`.
fn inode_in(answer: &[u8]) -> Option<u64> {
    const INODE: usize = HEAD + 68;
    let kind = u16::from_ne_bytes(answer.get(4..6)?.try_into().ok()?);
    let inode = u32::from_ne_bytes(answer.get(INODE..INODE + 4)?.try_into().ok()?);
    (kind == BY_FAMILY && inode != 0).then_some(inode.into())
}

/// Looks it up in the kernel's list of all sockets.
fn listed(sockets: &str, local: SocketAddrV4, remote: SocketAddrV4) -> Option<u64> {
    // The bytes of an address as the machine's own number, in hexadecimal.
    let as_listed = |address: SocketAddrV4| {
        let number = u32::from_ne_bytes(address.ip().octets());
        format!("{number:08X}:{:04X}", address.port())
    };
    let (local, remote) = (as_listed(local), as_listed(remote));
    // sl local_address rem_address st tx_queue:rx_queue tr:tm->when retrnsmt uid timeout inode
    sockets.lines().find_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        if words.next() != Some(&local) || words.next() != Some(&remote) {
            return None;
        }
        // Zero is the inode of sockets that no process has open any more.
        words.nth(6)?.parse().ok().filter(|inode| *inode != 0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{SocketAddr, TcpListener, TcpStream};
    use std::os::linux::fs::MetadataExt;

    #[test]
    fn both_ways_find_the_same_socket() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (SocketAddr::V4(local), SocketAddr::V4(remote)) =
            (client.local_addr().unwrap(), client.peer_addr().unwrap())
        else {
            panic!("it is an IPv4 socket")
        };
        let right = fs::metadata(format!("/proc/self/fd/{}", client.as_raw_fd())).unwrap().st_ino();
        let list = fs::read_to_string("/proc/net/tcp").unwrap();
        assert_eq!(listed(&list, local, remote), Some(right));
        assert_eq!(asked(local, remote), Some(right), "this kernel does not answer; the list has to do");
        assert_eq!(asked(local, "127.0.0.1:1".parse().unwrap()), None);
    }
}
