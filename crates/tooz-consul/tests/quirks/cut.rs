//! A network that is cut without a word: connections that were made before carry nothing any more, and new ones are served.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tooz_testbed::{Kind, Server};

use crate::Quirk;
use crate::stage::{connect, moment, play, within};

pub(crate) const QUIRKS: &[Quirk] =
    &[("cut::connections_that_hang_are_all_left_by_the_first_request_that_finds_one", || play(hanging()))];

/// Passes on what goes over a connection, until it is cut. It serves until the process ends.
struct Path {
    address: SocketAddr,
    cuts: Arc<AtomicU64>,
}

impl Path {
    fn to(server: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let (address, cuts) = (listener.local_addr()?, Arc::<AtomicU64>::default());
        let now = Arc::clone(&cuts);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(server) else { continue };
                let born = now.load(Ordering::Relaxed);
                for (mut from, mut to) in [(client.try_clone().unwrap(), server.try_clone().unwrap()), (server, client)]
                {
                    let now = Arc::clone(&now);
                    thread::spawn(move || {
                        let mut bytes = [0; 4096];
                        while let Ok(count @ 1..) = from.read(&mut bytes) {
                            // What is cut is held open and swallows everything.
                            if now.load(Ordering::Relaxed) == born && to.write_all(&bytes[..count]).is_err() {
                                break;
                            }
                        }
                        if now.load(Ordering::Relaxed) == born {
                            let _ = to.shutdown(std::net::Shutdown::Both);
                        }
                    });
                }
            }
        });
        Ok(Path { address, cuts })
    }

    fn cut(&self) {
        self.cuts.fetch_add(1, Ordering::Relaxed);
    }
}

async fn hanging() -> Result<()> {
    let server = Server::start(Kind::Consul)?;
    let path = Path::to(server.address())?;
    let one = connect(&format!("consul://{}?session_timeout=30s&operation_timeout=8s", path.address), "one").await?;
    let mut asking = Vec::new();
    for number in 0..40 {
        let lock = one.lock(format!("x-{number}"))?;
        asking.push(tokio::spawn(async move { lock.acquire().await }));
    }
    let mut guards = Vec::new();
    for one in asking {
        guards.push(one.await??);
    }
    moment().await;
    path.cut();
    let began = Instant::now();
    // Each of four connections would take the whole of the limit, which is 8 s.
    for number in 0..4 {
        drop(within("acquiring", one.lock(format!("y-{number}"))?.acquire()).await??);
    }
    ensure!(began.elapsed() < Duration::from_secs(15), "it took {:?}", began.elapsed());
    for guard in guards {
        within("releasing", guard.release()).await??;
    }
    Ok(())
}
