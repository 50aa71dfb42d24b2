//! Users that are switched on, passwords and certificates that are changed, and roles that are taken away for a while, under a running session.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tooz_core::{ConnectOptions, Credentials, ErrorKind};
use tooz_testbed::{Kind, Proxy, Server, Setup};

use crate::Quirk;
use crate::access::{as_bob, with_users};
use crate::stage::{connect, etcdctl, eventually, play, received, within};

pub(crate) const QUIRKS: &[Quirk] = &[
    ("rotation::users_that_are_switched_on_cost_no_holder_a_lock", || play(switched_on())),
    ("rotation::a_password_that_is_changed_with_its_file_loses_nothing", || play(password_file())),
    ("rotation::an_application_is_asked_for_its_password_at_each_login", || play(callback())),
    ("rotation::a_wrong_password_for_a_while_is_one_login_at_a_time_and_loses_nothing", || play(wrong_for_a_while())),
    ("rotation::a_role_that_is_revoked_for_a_while_makes_no_login_loop", || play(revoked_role())),
    ("rotation::a_login_that_fails_after_a_lost_reply_leaves_no_ghost", || play(failed_login())),
    ("rotation::certificates_that_are_renewed_on_disk_are_read_again", || play(certificates())),
];

/// A file that goes with the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str, content: &[u8]) -> Result<Self> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}-{count}", std::process::id()));
        std::fs::write(&path, content)?;
        Ok(Scratch(path))
    }

    fn write(&self, content: &[u8]) -> Result<()> {
        // As tools do it that renew certificates: no reader ever sees a half of it.
        let aside = self.0.with_extension("new");
        std::fs::write(&aside, content)?;
        Ok(std::fs::rename(aside, &self.0)?)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn as_root(server: &Server, command: &str) -> Result<String> {
    let mut arguments: Vec<_> = command.split(' ').collect();
    arguments.extend(["--user", "root:secret"]);
    etcdctl(server, &arguments)
}

/// It ends all tokens of the user.
fn change_password(server: &Server, password: &str) -> Result<()> {
    let mut change = server.tool("etcdctl")?;
    change.args(["--user", "root:secret", "user", "passwd", "bob", "--interactive=false"]);
    let mut child = change.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::null()).spawn()?;
    std::io::Write::write_all(child.stdin.as_mut().context("piped")?, format!("{password}\n").as_bytes())?;
    drop(child.stdin.take());
    ensure!(child.wait()?.success(), "the password is changed");
    Ok(())
}

async fn switched_on() -> Result<()> {
    let server = Server::start(Kind::Etcd)?;
    let (one, two) = (connect(&as_bob(&server), "one").await?, connect(&as_bob(&server), "two").await?);
    let guard = one.lock("x")?.acquire().await?;
    let membership = one.group("g")?.join_or_create(&1).await?;
    let mut watch = two.group("g")?.watch().await?;
    within("the snapshot", watch.next()).await?;
    let next = two.lock("x")?;
    let waiting = tokio::spawn(async move { next.acquire().await });
    for round in 0..2 {
        if round == 0 {
            with_users(&server)?;
        } else {
            as_root(&server, "auth disable")?;
            tokio::time::sleep(Duration::from_secs(1)).await;
            etcdctl(&server, &["auth", "enable"])?;
        }
        // Longer than the session would live without a beat.
        tokio::time::sleep(Duration::from_secs(4)).await;
        ensure!(
            guard.is_held() && membership.is_member() && !waiting.is_finished(),
            "round {round}: something was lost"
        );
        membership.update(&round).await?;
        within("the news", watch.next()).await?;
    }
    guard.release().await?;
    ensure!(within("the waiter", waiting).await???.is_held(), "the waiter has it");
    Ok(())
}

async fn password_file() -> Result<()> {
    let server = Server::start(Kind::Etcd)?;
    with_users(&server)?;
    let file = Scratch::new("password", b"hunter2\n")?;
    let url = server.url().replace("://", "://bob@");
    let url = format!("{url}?session_timeout=4s&password_file={}", file.0.display());
    let (one, two) = (connect(&url, "one").await?, connect(&url, "two").await?);
    let guard = one.lock("x")?.acquire().await?;
    let membership = one.group("g")?.join_or_create(&1).await?;
    let next = two.lock("x")?;
    let waiting = tokio::spawn(async move { next.acquire().await });
    for password in ["the-second", "the+third%20:@/x", "the-fourth"] {
        change_password(&server, password)?;
        // The file comes a moment later, as it does.
        tokio::time::sleep(Duration::from_millis(700)).await;
        file.write(format!("{password}\n").as_bytes())?;
        tokio::time::sleep(Duration::from_secs(5)).await;
        ensure!(guard.is_held() && membership.is_member(), "{password}: something was lost");
        ensure!(!waiting.is_finished(), "{password}: the waiter was sent away, or has the lock");
        membership.update(&password).await?;
    }
    within("releasing", guard.release()).await??;
    ensure!(within("the waiter", waiting).await???.is_held(), "the waiter has it");
    Ok(())
}

async fn callback() -> Result<()> {
    let server = Server::start(Kind::Etcd)?;
    with_users(&server)?;
    let (password, asked) = (Arc::new(Mutex::new("hunter2".to_owned())), Arc::new(AtomicU64::new(0)));
    let options = ConnectOptions::new(&format!("{}?session_timeout=4s", server.url()))?.member("one")?.credentials({
        let (password, asked) = (Arc::clone(&password), Arc::clone(&asked));
        move || {
            asked.fetch_add(1, Ordering::Relaxed);
            Ok(Credentials::new("bob", password.lock().expect("no thread panics").clone()))
        }
    });
    let one = within("connecting", options.connect()).await??;
    let guard = one.lock("x")?.acquire().await?;
    let before = asked.load(Ordering::Relaxed);
    ensure!(before == 1, "asked {before} times for one login");
    etcdctl(&server, &["--user", "root:secret", "user", "delete", "bob"])?;
    as_root(&server, "user add bob:the-second")?;
    as_root(&server, "user grant-role bob fleet")?;
    "the-second".clone_into(&mut *password.lock().expect("no thread panics"));
    tokio::time::sleep(Duration::from_secs(5)).await;
    ensure!(guard.is_held() && asked.load(Ordering::Relaxed) > before, "it was not asked again");
    within("releasing", guard.release()).await??;
    Ok(())
}

async fn wrong_for_a_while() -> Result<()> {
    let server = Server::start(Kind::Etcd)?;
    with_users(&server)?;
    let file = Scratch::new("password", b"hunter2")?;
    let url = server.url().replace("://", "://bob@");
    let one = connect(&format!("{url}?session_timeout=10s&password_file={}", file.0.display()), "one").await?;
    let guard = one.lock("x")?.acquire().await?;
    file.write(b"swordfish")?;
    // The tokens of a server are gone when it comes back, but for those of log-ins so fresh that only its log has them: these it does again.
    tokio::time::sleep(Duration::from_secs(1)).await;
    server.restart()?;
    let before = received(server.address(), &["Authenticate"])?;
    let mut asking = Vec::new();
    for _ in 0..50 {
        let lock = one.lock("y")?;
        asking.push(tokio::spawn(async move { lock.holders().await.map(drop) }));
    }
    for one in asking {
        let error = within("asking", one).await??.err().context("it was let in")?;
        ensure!(error.kind() == ErrorKind::Unauthorized && !error.to_string().contains("swordfish"), "{error}");
    }
    let logins = received(server.address(), &["Authenticate"])? - before;
    ensure!(logins <= 12.0, "{logins} logins for fifty questions");
    file.write(b"hunter2")?;
    eventually("it is let in again", async || Ok(one.lock("y")?.holders().await.is_ok())).await?;
    tokio::time::sleep(Duration::from_secs(8)).await;
    ensure!(guard.is_held(), "the session was lost");
    within("releasing", guard.release()).await??;
    Ok(())
}

async fn revoked_role() -> Result<()> {
    let server = Server::start(Kind::Etcd)?;
    with_users(&server)?;
    let url = format!("{}?session_timeout=30s", as_bob(&server));
    let (one, two) = (connect(&url, "one").await?, connect(&url, "two").await?);
    let guard = one.lock("x")?.acquire().await?;
    let membership = one.group("g")?.join_or_create(&1).await?;
    let mut watch = two.group("g")?.watch().await?;
    within("the snapshot", watch.next()).await?;
    let next = two.lock("x")?;
    let waiting = tokio::spawn(async move { next.acquire().await });
    tokio::time::sleep(Duration::from_millis(500)).await;
    as_root(&server, "user revoke-role bob fleet")?;
    // Its streams have to begin again while it may read nothing.
    server.restart()?;
    let error = within("asking", one.lock("x")?.holders()).await?.err().context("it may look")?;
    ensure!(error.kind() == ErrorKind::Unauthorized, "{error:?}");
    let before = received(server.address(), &["Authenticate", "Watch", "Range", "Txn"])?;
    tokio::time::sleep(Duration::from_secs(10)).await;
    let asked = received(server.address(), &["Authenticate", "Watch", "Range", "Txn"])? - before;
    ensure!(asked < 120.0, "{asked} questions of two sessions in ten seconds that bring nothing");
    as_root(&server, "user grant-role bob fleet")?;
    eventually("it may again", async || Ok(one.lock("x")?.holders().await.is_ok())).await?;
    ensure!(guard.is_held() && membership.is_member(), "something was lost");
    membership.update(&2).await?;
    within("the news", watch.next()).await?.context("the watch has ended")?;
    guard.release().await?;
    ensure!(within("the waiter", waiting).await???.is_held(), "the waiter has it");
    Ok(())
}

/// The first sending was done, and its answer got lost; the second wants a login, which fails. It is not known then whether it was done.
async fn failed_login() -> Result<()> {
    let server = Server::start(Kind::Etcd)?;
    with_users(&server)?;
    let proxies = [Proxy::start(server.address())?, Proxy::start(server.address())?];
    let file = Scratch::new("password", b"hunter2")?;
    let addresses = format!("{},{}", proxies[0].address(), proxies[1].address());
    // Time enough for the password to be changed between the two sendings.
    let url = format!("etcd://bob@{addresses}?session_timeout=60s&operation_timeout=20s");
    let one = connect(&format!("{url}&password_file={}", file.0.display()), "one").await?;
    let kept = one.lock("kept")?.acquire().await?;
    let swallows = [0, 1].map(|index| proxies[index].swallow_reply_for(b"/locks/x/", Duration::from_secs(6)));
    let lock = one.lock("x")?;
    let trying = tokio::spawn(async move { lock.try_acquire().await });
    let mut swallowed = None;
    eventually("one has swallowed it", async || {
        swallowed = swallows.iter().position(|swallow| swallow.wait(Duration::ZERO));
        Ok(swallowed.is_some())
    })
    .await?;
    proxies[1 - swallowed.context("one has")?].heal();
    change_password(&server, "the-second")?;
    // Past the second sending, and the login that it wanted. The try is answered only when all is taken back.
    tokio::time::sleep(Duration::from_secs(8)).await;
    ensure!(!trying.is_finished(), "it was answered though it is not known");
    file.write(b"the-second")?;
    let answer = within("trying", trying).await??;
    ensure!(answer.is_err(), "it was granted: {answer:?}");
    eventually("it is free", async || Ok(one.lock("x")?.holders().await.is_ok_and(|holders| holders.is_empty())))
        .await?;
    ensure!(kept.is_held(), "the session was lost");
    Ok(())
}

/// The certificate, the key and the authority that another server has.
fn papers(server: &Server) -> Result<[Vec<u8>; 3]> {
    let read = |name: &str| std::fs::read(server.folder().join(name));
    Ok([read("server.pem")?, read("server.key")?, read("ca.pem")?])
}

async fn certificates() -> Result<()> {
    if cfg!(not(feature = "tls")) {
        return Ok(());
    }
    let others = [Setup::new(Kind::Etcd).tls().start()?, Setup::new(Kind::Etcd).tls().start()?];
    let [old, new] = [papers(&others[0])?, papers(&others[1])?];
    drop(others);
    // The server lets in whom this authority vouches for.
    let trusted = Scratch::new("trusted.pem", &old[2])?;
    let server = Setup::new(Kind::Etcd)
        .tls()
        .argument(&format!("--client-cert-auth --trusted-ca-file {}", trusted.0.display()))
        .start()?;
    let [cert, key] = [Scratch::new("client.pem", &old[0])?, Scratch::new("client.key", &old[1])?];
    let ca = Scratch::new("ca.pem", &papers(&server)?[2])?;
    let url = format!("{}?session_timeout=30s&ca={}", server.url(), ca.0.display());
    let url = format!("{url}&cert={}&key={}", cert.0.display(), key.0.display());
    let (one, two) = (connect(&url, "one").await?, connect(&url, "two").await?);
    let guard = one.lock("x")?.acquire().await?;
    let mut watch = two.group("g")?;
    let membership = one.group("g")?.join_or_create(&1).await?;
    let mut news = watch.watch().await?;
    within("the snapshot", news.next()).await?;
    // First the server's own certificate is renewed, by another authority; then whom it lets in.
    for round in 0..2 {
        if round == 0 {
            std::fs::write(server.folder().join("server.pem"), &new[0])?;
            std::fs::write(server.folder().join("server.key"), &new[1])?;
        } else {
            trusted.write(&new[2])?;
        }
        server.restart()?;
        let error = within("asking", one.lock("x")?.holders()).await?.err().context("it was let in")?;
        ensure!(error.to_string().contains("cert"), "round {round}: {error}");
        tokio::time::sleep(Duration::from_secs(3)).await;
        if round == 0 {
            ca.write(&new[2])?;
        } else {
            // For a moment they do not fit each other.
            cert.write(&new[0])?;
            tokio::time::sleep(Duration::from_millis(500)).await;
            key.write(&new[1])?;
        }
        eventually("it is let in again", async || Ok(one.lock("x")?.holders().await.is_ok())).await?;
        eventually("the other too", async || Ok(two.lock("x")?.holders().await.is_ok())).await?;
        ensure!(guard.is_held() && membership.is_member(), "round {round}: something was lost");
        membership.update(&round).await?;
        within("the news", news.next()).await?.context("the watch has ended")?;
    }
    guard.release().await?;
    watch = two.group("h")?;
    watch.create().await?;
    Ok(())
}
