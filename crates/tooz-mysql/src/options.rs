//! The options of the URL: which there are, and how to connect by them.

use std::time::Duration;

use sqlx::ConnectOptions as _;
use sqlx::mysql::{MySqlConnectOptions, MySqlSslMode};
use tooz_core::driver::{
    CertificateFiles, ConnectArgs, CredentialSource, OptionSpec, OptionValue, OwnCertificate, PASSWORD_FILE,
};
use tooz_core::{Error, Result};

use crate::layout::Cases;

pub(crate) const OPTIONS: &[OptionSpec] = &[
    OptionSpec::new("waiters", OptionValue::Integer, "4", "how many connections may wait for locks at a time"),
    OptionSpec::new("sslmode", OptionValue::Text, "prefer", "disable, prefer, require, verify-ca or verify-full"),
    PASSWORD_FILE,
    OptionSpec::new(
        "ca",
        OptionValue::Text,
        "the system's",
        "file of the authority that signed the server; sslmode is verify-full then",
    ),
    OptionSpec::new("cert", OptionValue::Text, "none", "file of the client's certificate"),
    OptionSpec::new("key", OptionValue::Text, "none", "file of the client's key"),
    OptionSpec::new("socket", OptionValue::Text, "none", "the server's Unix socket, for a URL without a host"),
];

/// The database unless the URL names another one.
pub(crate) const DEFAULT_DATABASE: &str = "tooz";

/// The longest name of a database.
const LONGEST_NAME: usize = 64;

/// What a URL asks for. It can't be shown, since what it connects with may have a password.
#[derive(Clone)]
pub(crate) struct Settings {
    /// All but the user and the password. The files of certificates are read by each connection that is made.
    connect: MySqlConnectOptions,
    credentials: CredentialSource,
    /// The name of the database, as it is.
    pub(crate) database: String,
    /// How the server knew databases when it was first asked.
    pub(crate) cases: Option<Cases>,
    /// How many connections may wait for locks at a time.
    pub(crate) waiters: usize,
    pub(crate) session_timeout: Duration,
    pub(crate) connect_timeout: Duration,
    /// The limit of one statement.
    pub(crate) statement_timeout: Duration,
}

impl Settings {
    /// Reads what this driver's part of the connect arguments says.
    pub(crate) fn read(args: &ConnectArgs) -> Result<Self> {
        Ok(Settings {
            connect: connect_options(args)?,
            credentials: args.credentials.clone(),
            database: database(args.url.path().trim_start_matches('/'))?,
            cases: None,
            waiters: match args.options.integer("waiters")? {
                None => 4,
                Some(0) => return Err(Error::config("option waiters=0 is wrong: at least one connection must wait")),
                Some(many) => usize::try_from(many.min(1000)).unwrap_or(1000),
            },
            // The server counts in whole seconds.
            session_timeout: whole_seconds(args.session_timeout),
            connect_timeout: args.connect_timeout,
            statement_timeout: args.statement_timeout(),
        })
    }

    /// How to make one connection, with the user and the password as they are now.
    pub(crate) async fn connect_options(&self) -> Result<MySqlConnectOptions> {
        let login = self.credentials.read().await?;
        let mut connect = self.connect.clone();
        if let Some(user) = &login.username {
            connect = connect.username(user);
        }
        if let Some(password) = &login.password {
            connect = connect.password(password);
        }
        Ok(connect)
    }

    /// The server's address, for messages.
    pub(crate) fn place(&self) -> String {
        match self.connect.get_socket() {
            Some(socket) => socket.display().to_string(),
            None => format!("{}:{}", self.connect.get_host(), self.connect.get_port()),
        }
    }
}

/// Rounded up: the server must not end a session before the time that its member counts with.
fn whole_seconds(timeout: Duration) -> Duration {
    let more = u64::from(timeout.subsec_nanos() > 0);
    Duration::from_secs((timeout.as_secs() + more).max(1))
}

fn database(name: &str) -> Result<String> {
    let name = if name.is_empty() { DEFAULT_DATABASE } else { name };
    if name.chars().count() > LONGEST_NAME || name.chars().any(|one| one.is_control() || one > '\u{ffff}') {
        return Err(Error::config(format!(
            "{name:?} is no name of a database: those have 1 to {LONGEST_NAME} characters of at most three bytes"
        )));
    }
    if name.ends_with('/') {
        let word =
            "is no name of a database here: write it without the slash at the end, with which it would be another one";
        return Err(Error::config(format!("{name:?} {word}")));
    }
    if name.ends_with(' ') {
        return Err(Error::config(format!("{name:?} is no name of a database: those do not end with a space")));
    }
    Ok(name.to_owned())
}

fn connect_options(args: &ConnectArgs) -> Result<MySqlConnectOptions> {
    let (url, options) = (&args.url, &args.options);
    let mut connect = MySqlConnectOptions::new()
        // Each connection is set up by one packet of our own (`setup`).
        .pipes_as_concat(false)
        .no_engine_substitution(false)
        .timezone(None)
        .set_names(false)
        .statement_cache_capacity(0)
        // A wait for a lock is a slow statement on purpose, and a heartbeat is no news.
        .disable_statement_logging();
    match url.hosts() {
        [] => {}
        [host] => connect = connect.host(&host.name).port(host.port.unwrap_or(3306)),
        _ => {
            return Err(Error::config(
                "several hosts make no sense here: named locks are of one server and do not survive a failover; name the one primary",
            ));
        }
    }
    if let Some(socket) = options.text("socket") {
        if !url.hosts().is_empty() {
            return Err(Error::config("option socket is for URLs without a host: mysql:///DATABASE?socket=/FILE"));
        }
        connect = connect.socket(socket);
    }
    let files = CertificateFiles::named(options)?;
    // A URL that names an authority wants the server to be vouched for by it.
    if let Some(mode) = options.text("sslmode").or(files.ca.as_ref().map(|_| "verify-full")) {
        connect = connect.ssl_mode(ssl_mode(mode)?);
    } else if options.text("socket").is_some() {
        connect = connect.ssl_mode(MySqlSslMode::Disabled);
    }
    if let Some(ca) = files.ca {
        connect = connect.ssl_ca(ca);
    }
    if let Some(OwnCertificate { cert, key }) = files.own {
        connect = connect.ssl_client_cert(cert).ssl_client_key(key);
    }
    Ok(connect)
}

fn ssl_mode(mode: &str) -> Result<MySqlSslMode> {
    // As with PostgreSQL, and as the clients of MySQL write it.
    let parsed = match mode.to_ascii_lowercase().replace('_', "-").as_str() {
        "disable" | "disabled" => MySqlSslMode::Disabled,
        "prefer" | "preferred" => MySqlSslMode::Preferred,
        "require" | "required" => MySqlSslMode::Required,
        "verify-ca" => MySqlSslMode::VerifyCa,
        "verify-full" | "verify-identity" => MySqlSslMode::VerifyIdentity,
        _ => {
            return Err(Error::config(format!(
                "option sslmode={mode:?} is wrong: it takes disable, prefer, require, verify-ca or verify-full"
            )));
        }
    };
    let needs_tls = !matches!(parsed, MySqlSslMode::Disabled | MySqlSslMode::Preferred);
    if needs_tls && !cfg!(feature = "tls") {
        return Err(Error::config(format!(
            "sslmode={mode} needs TLS, which is not built in: enable feature \"tls\" of the crate `tooz-mysql`"
        )));
    }
    Ok(parsed)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use tooz_core::driver::{ConnectFuture, Session};
    use tooz_core::{ConnectOptions, Driver, ErrorKind};

    use super::*;

    /// Reads the options as the driver does, and goes no further: the error of kind `Backend` says that they can be read.
    static CARD: Driver = Driver::new("mysql", &["mysql", "mariadb"], read_only).options(OPTIONS);

    fn read_only(args: ConnectArgs) -> ConnectFuture {
        Box::pin(async move {
            Settings::read(&args)?;
            Err::<Arc<dyn Session>, _>(Error::new(ErrorKind::Backend, "read"))
        })
    }

    fn refused(url: &str) -> Option<Error> {
        let connect = ConnectOptions::new(url).ok()?.driver(&CARD).member("m").ok()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Some(runtime.block_on(connect.connect()).unwrap_err())
    }

    proptest! {
        #[test]
        fn each_url_is_read_or_refused_and_shows_no_password(
            text: String,
            hosts in "[a-z0-9.:,\\[\\]%@-]{0,40}",
            rest in "(/[a-z0-9/%.]{0,8})?(\\?(waiters|sslmode|socket|password_file|cert)=[a-z0-9%]{0,6})?",
        ) {
            for url in [text, format!("mysql://{hosts}{rest}"), format!("mariadb://me:pass-word@{hosts}{rest}")] {
                let Some(error) = refused(&url) else { continue };
                prop_assert!(matches!(error.kind(), ErrorKind::Backend | ErrorKind::Config), "{url}: {error}");
                prop_assert!(!error.to_string().contains("pass-word"), "{url}: {error}");
            }
        }
    }

    #[test]
    fn a_database_is_a_name_that_the_server_keeps_whole() {
        assert_eq!(database("").unwrap(), "tooz");
        assert_eq!(database("my `db`").unwrap(), "my `db`");
        assert!(database(&"ä".repeat(64)).is_ok());
        for bad in ["a\nb", "ends ", "ends/", "😀", &"x".repeat(65)] {
            assert!(database(bad).unwrap_err().to_string().contains("database"), "{bad}");
        }
    }

    #[test]
    fn a_timeout_is_rounded_up_to_whole_seconds() {
        for (given, whole) in [(1, 1), (999, 1), (1000, 1), (1001, 2), (2500, 3), (10_000, 10)] {
            assert_eq!(whole_seconds(Duration::from_millis(given)), Duration::from_secs(whole));
        }
    }

    #[test]
    fn a_mode_of_tls_is_written_as_with_postgresql_or_as_with_mysql() {
        assert!(matches!(ssl_mode("disable").unwrap(), MySqlSslMode::Disabled));
        assert!(matches!(ssl_mode("PREFERRED").unwrap(), MySqlSslMode::Preferred));
        assert!(ssl_mode("always").is_err());
        if cfg!(feature = "tls") {
            assert!(matches!(ssl_mode("VERIFY_IDENTITY").unwrap(), MySqlSslMode::VerifyIdentity));
        } else {
            assert!(ssl_mode("require").unwrap_err().to_string().contains("feature"));
        }
    }
}
