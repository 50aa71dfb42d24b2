//! From the URL to how to connect.

use std::time::Duration;

use sqlx::ConnectOptions as _;
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use tooz_core::driver::{ConnectArgs, CredentialSource, Options};
use tooz_core::{Error, Result};

use crate::schema::DEFAULT;

/// The longest name that PostgreSQL keeps of an identifier.
const LONGEST_IDENTIFIER: usize = 63;

/// What a URL asks for. It can't be shown, since what it connects with may have a password from the environment.
#[derive(Clone)]
pub(crate) struct Settings {
    /// All but who logs in. The files of certificates are read by each connection that is made.
    connect: PgConnectOptions,
    credentials: CredentialSource,
    /// The name of the schema, as it is.
    pub(crate) schema: String,
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
            schema: schema(args.options.text("schema").unwrap_or(DEFAULT))?,
            waiters: match args.options.integer("waiters")? {
                None => 4,
                Some(0) => return Err(Error::config("option waiters=0 is wrong: at least one connection must wait")),
                Some(many) => usize::try_from(many.min(1000)).unwrap_or(1000),
            },
            session_timeout: args.session_timeout,
            connect_timeout: args.connect_timeout,
            statement_timeout: args.statement_timeout(),
        })
    }

    /// How to make one connection, with the user and the password as they are now.
    pub(crate) async fn connect_options(&self) -> Result<PgConnectOptions> {
        let who = self.credentials.read().await?;
        let mut connect = self.connect.clone();
        if let Some(user) = &who.username {
            connect = connect.username(user);
        }
        if let Some(password) = &who.password {
            connect = connect.password(password);
        }
        Ok(connect)
    }

    /// Where the server is: not with whom to log in.
    pub(crate) fn address(&self) -> (&str, u16) {
        (self.connect.get_host(), self.connect.get_port())
    }

    /// Whether it is reached by a socket in a folder.
    pub(crate) fn is_local(&self) -> bool {
        self.connect.get_socket().is_some() || self.connect.get_host().starts_with('/')
    }
}

fn schema(name: &str) -> Result<String> {
    if name.is_empty() || name.len() > LONGEST_IDENTIFIER || name.chars().any(char::is_control) {
        return Err(Error::config(format!(
            "option schema={name:?} is wrong: it takes the name of a schema, 1 to {LONGEST_IDENTIFIER} bytes long"
        )));
    }
    if name.starts_with("pg_") {
        return Err(Error::config(format!("option schema={name:?} is wrong: names from pg_ on are PostgreSQL's own")));
    }
    if name == "$user" {
        return Err(Error::config(format!(
            "option schema={name:?} is wrong: in a search path PostgreSQL takes it for the name of whoever logs in"
        )));
    }
    Ok(name.to_owned())
}

fn connect_options(args: &ConnectArgs) -> Result<PgConnectOptions> {
    let (url, options) = (&args.url, &args.options);
    let mut connect = PgConnectOptions::new_without_pgpass()
        .application_name(&format!("tooz:{}", args.member))
        // A wait for a lock is a slow statement on purpose, and a heartbeat is no news.
        .disable_statement_logging();
    match url.hosts() {
        [] => {}
        [host] => {
            connect = connect.host(&host.name);
            // As everywhere with PostgreSQL; what the environment says is for URLs without a host.
            connect = connect.port(host.port.unwrap_or(5432));
        }
        _ => {
            return Err(Error::config(
                "several hosts make no sense here: advisory locks do not survive a failover; name the one primary",
            ));
        }
    }
    if let Some(host) = options.text("host") {
        if !url.hosts().is_empty() {
            return Err(Error::config("option host is for URLs without one: postgresql:///DATABASE?host=/FOLDER"));
        }
        connect = connect.host(host);
    }
    if let Some(port) = options.integer("port")? {
        if url.hosts().iter().any(|host| host.port.is_some()) {
            return Err(Error::config("the port is given twice: in the URL's host and as an option"));
        }
        let port = u16::try_from(port).ok().filter(|port| *port > 0);
        connect = connect.port(port.ok_or_else(|| Error::config("option port takes a number from 1 to 65535"))?);
    }
    let database = url.path().trim_start_matches('/');
    if !database.is_empty() {
        connect = connect.database(database);
    }
    // Who names an authority wants the server to be vouched for by it.
    if let Some(mode) = options.text("sslmode").or(options.text("ca").map(|_| "verify-full")) {
        let parsed: PgSslMode = mode.parse().map_err(|_| {
            Error::config(format!(
                "option sslmode={mode:?} is wrong: it takes disable, allow, prefer, require, verify-ca or verify-full"
            ))
        })?;
        let needs_tls = matches!(parsed, PgSslMode::Require | PgSslMode::VerifyCa | PgSslMode::VerifyFull);
        if needs_tls && !cfg!(feature = "tls") {
            return Err(Error::config(format!(
                "sslmode={mode} needs TLS, which is not built in: enable feature \"tls\" of the crate `tooz-postgres`"
            )));
        }
        connect = connect.ssl_mode(parsed);
    }
    if let Some(file) = file(options, "ca", "sslrootcert")? {
        connect = connect.ssl_root_cert(file);
    }
    if let Some(file) = file(options, "cert", "sslcert")? {
        connect = connect.ssl_client_cert(file);
    }
    if let Some(file) = file(options, "key", "sslkey")? {
        connect = connect.ssl_client_key(file);
    }
    Ok(connect)
}

/// A file that is named as in every driver, or as everywhere with PostgreSQL.
fn file<'o>(options: &'o Options, name: &str, other_name: &str) -> Result<Option<&'o str>> {
    match (options.text(name), options.text(other_name)) {
        (Some(_), Some(_)) => Err(Error::config(format!("{name} and {other_name} are the same: give one of them"))),
        (one, other) => Ok(one.or(other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_is_a_name_that_postgresql_keeps_whole() {
        assert_eq!(schema("my schema").unwrap(), "my schema");
        assert_eq!(schema("my$user").unwrap(), "my$user");
        for bad in ["", "pg_catalog", "$user", "a\nb", &"x".repeat(64)] {
            assert!(schema(bad).unwrap_err().to_string().contains("schema"), "{bad}");
        }
    }
}
