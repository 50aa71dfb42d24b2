//! What the cases ask Consul by itself.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use tooz_testbed::Server;

/// The ids of all sessions.
pub(crate) fn sessions(server: &Server) -> Vec<String> {
    let address = server.address();
    let mut stream = TcpStream::connect(address).expect("Consul listens");
    write!(stream, "GET /v1/session/list HTTP/1.0\r\nHost: {address}\r\n\r\n").expect("Consul reads");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("Consul answers");
    let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    let sessions: Vec<serde_json::Value> = serde_json::from_str(body).expect("a list of sessions");
    sessions.iter().filter_map(|session| session["ID"].as_str().map(str::to_owned)).collect()
}
