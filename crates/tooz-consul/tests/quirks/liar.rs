//! An agent that passes everything on to a real one, but for what it is told to say instead.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use anyhow::Result;

/// One lie: to the next so many requests whose first line or body has these words.
struct Lie {
    words: String,
    times: usize,
    status: &'static str,
    text: &'static str,
    /// Whether the request is passed on all the same.
    after: bool,
}

/// An agent that may be told to lie. It serves until the process ends.
pub(crate) struct Liar {
    address: SocketAddr,
    lies: Arc<Mutex<Vec<Lie>>>,
    heard: Arc<Mutex<Vec<String>>>,
}

impl Liar {
    pub(crate) fn before(upstream: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let address = listener.local_addr()?;
        let (lies, heard) = (Arc::<Mutex<Vec<Lie>>>::default(), Arc::<Mutex<Vec<String>>>::default());
        let told = (Arc::clone(&lies), Arc::clone(&heard));
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (lies, heard) = (Arc::clone(&told.0), Arc::clone(&told.1));
                thread::spawn(move || serve(&client, upstream, &lies, &heard));
            }
        });
        Ok(Liar { address, lies, heard })
    }

    pub(crate) fn url(&self) -> String {
        format!("consul://{}", self.address)
    }

    /// Lies to the next so many requests with these words in them, and does not pass them on.
    pub(crate) fn say(&self, words: &str, times: usize, status: &'static str, text: &'static str) {
        self.add(words, times, status, text, false);
    }

    /// The same, where the request is done.
    pub(crate) fn say_after(&self, words: &str, times: usize, status: &'static str, text: &'static str) {
        self.add(words, times, status, text, true);
    }

    fn add(&self, words: &str, times: usize, status: &'static str, text: &'static str, after: bool) {
        self.lies.lock().unwrap().push(Lie { words: words.to_owned(), times, status, text, after });
    }

    /// How many lies are left to be told.
    pub(crate) fn left(&self) -> usize {
        self.lies.lock().unwrap().iter().map(|lie| lie.times).sum()
    }

    /// The first lines of all requests so far.
    pub(crate) fn heard(&self) -> Vec<String> {
        self.heard.lock().unwrap().clone()
    }
}

fn serve(client: &TcpStream, upstream: SocketAddr, lies: &Mutex<Vec<Lie>>, heard: &Mutex<Vec<String>>) -> Option<()> {
    let mut reader = BufReader::new(client);
    loop {
        let (mut header, mut length) = (Vec::new(), 0);
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).ok()? == 0 {
                return None;
            }
            let line = line.trim_end().to_owned();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().ok()?;
            }
            header.push(line);
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        let first = header.first()?.clone();
        heard.lock().ok()?.push(first.clone());
        let text = format!("{first}\n{}", String::from_utf8_lossy(&body));
        let lie = lies.lock().ok()?.iter_mut().find(|lie| lie.times > 0 && text.contains(&lie.words)).map(|lie| {
            lie.times -= 1;
            (lie.status, lie.text, lie.after)
        });
        let answer = match lie {
            Some((status, text, false)) => said(status, text),
            Some((status, text, true)) => {
                pass_on(upstream, &header, &body)?;
                said(status, text)
            }
            None => pass_on(upstream, &header, &body)?,
        };
        (&*client).write_all(&answer).ok()?;
    }
}

fn said(status: &str, text: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\nLocation: /v1/kv/another\r\nContent-Length: {}\r\n\r\n{text}", text.len()).into()
}

/// Asks by a connection of its own, whose end is the end of the answer.
fn pass_on(upstream: SocketAddr, head: &[String], body: &[u8]) -> Option<Vec<u8>> {
    let mut stream = TcpStream::connect(upstream).ok()?;
    let first = head.first()?.replace("HTTP/1.1", "HTTP/1.0");
    write!(stream, "{first}\r\n{}\r\n\r\n", head[1..].join("\r\n")).ok()?;
    stream.write_all(body).ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
    let lines = String::from_utf8_lossy(&answer[..end]).into_owned();
    let kept = lines.lines().filter(|line| {
        let line = line.to_lowercase();
        !line.starts_with("content-length") && !line.starts_with("connection")
    });
    let kept: Vec<&str> = kept.collect();
    let content = &answer[end + 4..];
    let mut whole =
        format!("{}\r\nContent-Length: {}\r\n\r\n", kept.join("\r\n").replace("HTTP/1.0", "HTTP/1.1"), content.len());
    let mut bytes = std::mem::take(&mut whole).into_bytes();
    bytes.extend_from_slice(content);
    Some(bytes)
}
