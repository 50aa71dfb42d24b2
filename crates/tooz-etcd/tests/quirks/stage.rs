//! Where a quirk plays: a server, coordinators on it, and a limit to every wait.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tooz_core::{ConnectOptions, Coordinator};
use tooz_testbed::Server;

/// How long a test waits for what must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(15);

/// Runs a test on a runtime of its own.
pub(crate) fn play(test: impl Future<Output = Result<()>>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let result = runtime.block_on(async { tokio::time::timeout(PATIENCE * 8, test).await });
    runtime.shutdown_background();
    result.context("the test did not end")?
}

/// A coordinator with a session timeout of 2 s, unless the URL says otherwise.
pub(crate) async fn connect(url: &str, member: &str) -> Result<Coordinator> {
    let mark = if url.contains('?') { '&' } else { '?' };
    let url = if url.contains("session_timeout") { url.to_owned() } else { format!("{url}{mark}session_timeout=2s") };
    Ok(within("connecting", ConnectOptions::new(&url)?.member(member)?.connect()).await??)
}

/// Waits, but not for ever.
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> Result<T> {
    tokio::time::timeout(PATIENCE, future).await.with_context(|| format!("{what} took longer than {PATIENCE:?}"))
}

/// Asks again until the answer is yes.
pub(crate) async fn eventually(what: &str, mut ask: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
    let asking = async {
        while !ask().await? {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        anyhow::Ok(())
    };
    within(what, asking).await?
}

/// What one of etcd's own programs says.
pub(crate) fn etcdctl(server: &Server, arguments: &[&str]) -> Result<String> {
    let output = server.tool("etcdctl")?.args(arguments).output()?;
    ensure!(output.status.success(), "etcdctl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

/// All keys of this driver, but for the record of the layout, which stays.
pub(crate) fn keys(server: &Server) -> Result<Vec<String>> {
    let listed = etcdctl(server, &["get", "--prefix", "/tooz/", "--keys-only"])?;
    let is_meant = |line: &&str| !line.is_empty() && !line.ends_with("/layout");
    Ok(listed.lines().filter(is_meant).map(str::to_owned).collect())
}

/// Asks etcd by its interface in JSON.
pub(crate) fn post(address: SocketAddr, path: &str, body: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "POST {path} HTTP/1.0\r\nHost: {address}\r\nContent-Length: {}\r\n\r\n{body}", body.len())?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    ensure!(text.starts_with("HTTP/1.0 200") || text.starts_with("HTTP/1.1 200"), "{path}: {text}");
    Ok(text)
}

/// The sum of etcd's counter of that name over all of its lines that hold every one of these words.
pub(crate) fn metric(address: SocketAddr, name: &str, words: &[&str]) -> Result<f64> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET /metrics HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    ensure!(text.contains(name), "etcd has no metric {name}");
    let lines = text.lines().filter(|line| line.starts_with(name) && words.iter().all(|word| line.contains(word)));
    Ok(lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
}

/// How many messages etcd got for these calls so far.
pub(crate) fn received(address: SocketAddr, calls: &[&str]) -> Result<f64> {
    let count = |call: &&str| metric(address, "grpc_server_msg_received_total", &[&format!("grpc_method=\"{call}\"")]);
    calls.iter().map(count).sum()
}
