//! Which of the servers has made a connection: the kernel knows, and tells the user who runs them.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use super::sockets;
use crate::faults::proxy::ClientIdentifier;
use crate::server::Pid;

/// The processes of all servers of a cluster.
#[derive(Debug)]
pub(super) struct Roster(Vec<Pid>);

impl Roster {
    pub(super) fn new(pids: Vec<Pid>) -> Self {
        Roster(pids)
    }

    /// The server whose process has the socket of that inode.
    fn owner(&self, inode: u64) -> Option<usize> {
        let link = PathBuf::from(format!("socket:[{inode}]"));
        self.0.iter().position(|pid| {
            // Waits where the process is being started: it can be here before its id is known.
            let files = fs::read_dir(format!("/proc/{}/fd", *pid.lock()));
            let mut files = files.into_iter().flatten().flatten();
            files.any(|file| fs::read_link(file.path()).is_ok_and(|target| target == link))
        })
    }
}

/// Tells of a connection which of these servers has made it.
pub(super) fn connections_of(roster: &Arc<Roster>) -> ClientIdentifier {
    let roster = Arc::clone(roster);
    Box::new(move |stream| {
        let (SocketAddr::V4(client), SocketAddr::V4(here)) = (stream.peer_addr().ok()?, stream.local_addr().ok()?)
        else {
            return None;
        };
        roster.owner(sockets::inode(client, here)?)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use parking_lot::Mutex;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn a_connection_is_found_to_be_of_this_process() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        let stranger = Arc::new(Mutex::new(1));
        let this = Arc::new(Mutex::new(std::process::id()));
        let roster = Arc::new(Roster::new(vec![Arc::clone(&stranger), this]));
        assert_eq!(connections_of(&roster)(&accepted), Some(1));
        let strangers = Arc::new(Roster::new(vec![stranger]));
        assert_eq!(connections_of(&strangers)(&accepted), None);
    }
}
