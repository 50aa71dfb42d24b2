//! Logging in: with any password, and with another one than the last time.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::sleep;
use tooz_core::{ConnectOptions, Coordinator, Credentials, ErrorKind, LockGuard, Membership};
use tooz_testbed::{Cluster, Kind, Server, Setup};

use crate::bed::{CARD, cli, connect, hang_up, soon, start, trials, try_connect};

trials! {
    any_password_logs_in_and_none_is_a_command
    a_password_that_is_rotated_in_its_file_loses_nothing
    a_password_that_comes_late_is_waited_for
    the_application_is_asked_for_the_password_at_each_connection
    sentinels_are_logged_in_at_with_the_password_of_today
    certificates_that_are_renewed_lose_nothing
}

/// `app`'s rights, without its password.
const RIGHTS: &str = "~tooz:* &tooz:* +@all -@admin -@dangerous +info";

/// Each byte as URLs may always have it.
fn encoded(text: &str) -> String {
    text.bytes().flat_map(|byte| format!("%{byte:02X}").into_bytes()).map(char::from).collect()
}

fn set_password(server: &Server, password: &str) {
    let password = format!(">{password}");
    let mut words = vec!["ACL", "SETUSER", "app", "on", "resetpass", password.as_str()];
    words.extend(RIGHTS.split(' '));
    cli(server, &words);
}

async fn any_password_logs_in_and_none_is_a_command() {
    let server = start();
    cli(&server, &["SET", "k", "v"]);
    for password in
        ["two words", " ", "say \"hi\"", "it's", "back\\slash", "a\tb", "x\r\nDEL k", "\r\n", "\"", "Ärger%\u{7f}"]
    {
        set_password(&server, password);
        let a = as_who(&server, Credentials::new("app", password)).await.expect("it is the password");
        assert!(soon(a.lock("x").unwrap().try_acquire()).await.unwrap().is_some(), "{password:?}");
        soon(a.close()).await.unwrap();
    }
    set_password(&server, "two words");
    let in_the_url = format!("redis://app:{}@{}", encoded("two words"), server.address());
    soon(connect(&in_the_url, "a").await.close()).await.unwrap();
    for word in ["x\r\nDEL k", "x\nDEL k", "\"\r\nDEL k", "x DEL k"] {
        // The user of those who name none has no password here, so that any will do.
        let _ = as_who(&server, Credentials::password(word)).await;
        assert_eq!(cli(&server, &["GET", "k"]), "v", "{word:?}");
        for who in [Credentials::new("app", word), Credentials::new(word, "x")] {
            let error = as_who(&server, who).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unauthorized, "{error}");
            assert!(!format!("{error} {error:?}").contains("DEL"), "{error:?}");
            assert_eq!(cli(&server, &["GET", "k"]), "v", "{word:?}");
        }
    }
}

/// By the application's word, which may have characters in it that a URL must not have.
async fn as_who(server: &Server, who: Credentials) -> tooz_core::Result<Coordinator> {
    let options = ConnectOptions::new(&format!("redis://{}", server.address()))?.driver(&CARD).member("a")?;
    soon(options.session_timeout(Duration::from_secs(2)).credentials(move || Ok(who.clone())).connect()).await
}

struct File(PathBuf);

impl File {
    fn new(server: &Server, text: &str) -> Self {
        let file = File(server.folder().join("password"));
        file.write(text);
        file
    }

    fn write(&self, text: &str) {
        std::fs::write(&self.0, format!("{text}\n")).unwrap();
    }
}

/// A member that holds something of each kind.
struct Holder {
    guard: LockGuard,
    membership: Membership,
}

impl Holder {
    async fn of(coordinator: &Coordinator) -> Self {
        Holder {
            guard: soon(coordinator.lock("x").unwrap().acquire()).await.unwrap(),
            membership: soon(coordinator.group("g").unwrap().join_or_create(&1)).await.unwrap(),
        }
    }

    async fn still_holds(self) {
        sleep(Duration::from_secs(4)).await;
        assert!(self.guard.is_held() && self.membership.is_member());
        soon(self.guard.release()).await.unwrap();
        soon(self.membership.leave()).await.unwrap();
    }
}

async fn a_password_that_is_rotated_in_its_file_loses_nothing() {
    let server = start();
    set_password(&server, "one");
    let file = File::new(&server, "one");
    let a = connect(&format!("redis://app@{}?password_file={}", server.address(), file.0.display()), "a").await;
    let holder = Holder::of(&a).await;
    file.write("and two");
    set_password(&server, "and two");
    hang_up(&server);
    holder.still_holds().await;
}

async fn a_password_that_comes_late_is_waited_for() {
    let server = start();
    set_password(&server, "one");
    let file = File::new(&server, "one");
    let url = format!("redis://app@{}?session_timeout=6s&password_file={}", server.address(), file.0.display());
    let a = connect(&url, "a").await;
    let holder = Holder::of(&a).await;
    set_password(&server, "two");
    hang_up(&server);
    sleep(Duration::from_secs(1)).await;
    std::fs::remove_file(&file.0).unwrap();
    let error = soon(a.lock("y").unwrap().try_acquire()).await.unwrap_err();
    assert!(error.to_string().contains("password"), "it says why there is no connection: {error}");
    file.write("two");
    holder.still_holds().await;
}

async fn the_application_is_asked_for_the_password_at_each_connection() {
    let server = start();
    set_password(&server, "one");
    let password = Arc::new(Mutex::new("one"));
    let asked = Arc::clone(&password);
    let options = ConnectOptions::new(&format!("redis://{}", server.address())).unwrap().driver(&CARD);
    let options = options.member("a").unwrap().session_timeout(Duration::from_secs(2));
    let options = options.credentials(move || Ok(Credentials::new("app", *asked.lock().unwrap())));
    let a = soon(options.connect()).await.unwrap();
    let holder = Holder::of(&a).await;
    *password.lock().unwrap() = "two";
    set_password(&server, "two");
    hang_up(&server);
    holder.still_holds().await;
}

async fn sentinels_are_logged_in_at_with_the_password_of_today() {
    let cluster =
        tokio::task::spawn_blocking(|| Cluster::start(Kind::Redis).expect("a cluster can be started")).await.unwrap();
    let set_password = |password: &str| {
        for sentinel in cluster.sentinels() {
            let password = format!(">{password}");
            cli(sentinel, &["ACL", "SETUSER", "app", "on", "resetpass", &password, "+@all", "allchannels", "allkeys"]);
        }
    };
    set_password("one and more");
    let primary = &cluster.nodes()[cluster.leader().unwrap()];
    let file = File::new(primary, "one and more");
    let url =
        format!("{}&session_timeout=4s&sentinel_user=app&sentinel_password_file={}", cluster.url(), file.0.display());
    let a = connect(&url, "a").await;
    let holder = Holder::of(&a).await;
    file.write("two");
    set_password("two");
    cluster.sentinels().iter().for_each(|sentinel| drop(cli(sentinel, &["CLIENT", "LIST"])));
    hang_up(primary);
    holder.still_holds().await;
    std::fs::write(&file.0, "wrong").unwrap();
    let error = try_connect(&url, "b").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthorized, "{error}");
}

#[cfg(feature = "tls")]
async fn certificates_that_are_renewed_lose_nothing() {
    let server = Setup::new(Kind::Redis).tls().argument("--tls-auth-clients yes").start().unwrap();
    // Only for its certificates, which are another authority's.
    let renewed = Setup::new(Kind::Redis).tls().start().unwrap();
    let own = server.folder().join("own");
    std::fs::create_dir(&own).unwrap();
    let copy = |from: &Path| {
        for name in ["ca.pem", "server.pem", "server.key"] {
            std::fs::copy(from.join(name), own.join(name)).unwrap();
        }
    };
    copy(server.folder());
    let files = own.display();
    let url = format!("{}?ca={files}/ca.pem&cert={files}/server.pem&key={files}/server.key", server.url());
    let a = connect(&url, "a").await;
    let holder = Holder::of(&a).await;
    copy(renewed.folder());
    // All in one connection, since none is made by the old ones any more.
    let mut command = server.tool("redis-cli").unwrap();
    command.arg("--cert").arg(server.folder().join("server.pem")).arg("--key").arg(server.folder().join("server.key"));
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let to = renewed.folder().display();
    let rotate = format!(
        "CONFIG SET tls-cert-file {to}/server.pem tls-key-file {to}/server.key tls-ca-cert-file {to}/ca.pem\n\
         CLIENT KILL TYPE normal SKIPME yes\nCLIENT KILL TYPE pubsub\n"
    );
    child.stdin.take().unwrap().write_all(rotate.as_bytes()).unwrap();
    let said = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
    assert!(said.starts_with("OK"), "{said}");
    holder.still_holds().await;
}

#[cfg(not(feature = "tls"))]
async fn certificates_that_are_renewed_lose_nothing() {}
