//! The thread of a proxy that takes new connections.

use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::connection::Connection;
use super::forward;
use super::shared::Shared;

/// Tells the clients apart by their connection. A client that it does not know is `None`.
pub(crate) type ClientIdentifier = Box<dyn Fn(&TcpStream) -> Option<usize> + Send + Sync>;

/// How long to leave the listener alone when the system has no more files for us.
const BREATHER: Duration = Duration::from_millis(10);

pub(super) fn run(shared: &Arc<Shared>, listener: &TcpListener, who_is: ClientIdentifier) {
    let who_is = Arc::new(who_is);
    loop {
        let accepted = listener.accept();
        if shared.is_closed() {
            return;
        }
        match accepted {
            Ok((stream, _)) => {
                let (shared, who_is) = (Arc::clone(shared), Arc::clone(&who_is));
                // Knowing who it is takes a moment, and connecting may have to wait for the end of a fault. Where there is
                // no thread for it the connection ends here.
                let thread = thread::Builder::new().name("proxied connection".to_owned());
                drop(thread.spawn(move || take(&shared, stream, &who_is)));
            }
            Err(_) => thread::sleep(BREATHER),
        }
    }
}

fn take(shared: &Arc<Shared>, stream: TcpStream, who_is: &ClientIdentifier) {
    let client_is = who_is(&stream);
    let Ok(connection) = Connection::new(stream, client_is).map(Arc::new) else { return };
    if shared.admit(&connection) {
        forward::serve(shared, &connection);
    } else {
        connection.die();
    }
}
