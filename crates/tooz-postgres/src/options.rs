//! The options of the URL: which there are, and how to connect by them.

use std::path::PathBuf;
use std::time::Duration;

use sqlx::ConnectOptions as _;
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use tooz_core::driver::{
    CertificateFiles, ConnectArgs, CredentialSource, OptionSpec, OptionValue, Options, OwnCertificate, PASSWORD_FILE,
};
use tooz_core::{Error, Result};

pub(crate) const OPTIONS: &[OptionSpec] = &[
    OptionSpec::new("schema", OptionValue::Text, DEFAULT_SCHEMA, "the schema of the database that the tables are in"),
    OptionSpec::new("waiters", OptionValue::Integer, "4", "how many connections may wait for locks at a time"),
    OptionSpec::new(
        "sslmode",
        OptionValue::Text,
        "prefer",
        "disable, allow, prefer, require, verify-ca or verify-full",
    ),
    PASSWORD_FILE,
    OptionSpec::new(
        "ca",
        OptionValue::Text,
        "the system's",
        "file of the authority that signed the server; sslmode is verify-full then",
    ),
    OptionSpec::new("cert", OptionValue::Text, "none", "file of the client's certificate"),
    OptionSpec::new("key", OptionValue::Text, "none", "file of the client's key"),
    OptionSpec::new("sslrootcert", OptionValue::Text, "none", "the same as ca"),
    OptionSpec::new("sslcert", OptionValue::Text, "none", "the same as cert"),
    OptionSpec::new("sslkey", OptionValue::Text, "none", "the same as key"),
    OptionSpec::new("host", OptionValue::Text, "of the URL", "the host, or the folder of the server's Unix socket"),
    OptionSpec::new("port", OptionValue::Integer, "5432", "the port, where the URL has no host to write it behind"),
];

/// The schema unless another one is named.
pub(crate) const DEFAULT_SCHEMA: &str = "tooz";

/// The longest name that PostgreSQL keeps of an identifier.
const LONGEST_IDENTIFIER: usize = 63;

/// What a URL asks for. It can't be shown, since what it connects with may have a password from the environment.
#[derive(Clone)]
pub(crate) struct Settings {
    /// All but the user and the password. The files of certificates are read by each connection that is made.
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
            schema: schema(args.options.text("schema").unwrap_or(DEFAULT_SCHEMA))?,
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

    /// Where the server is, without the user.
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
            "option schema={name:?} is wrong: in a search path PostgreSQL takes it for the name of the user that logs in"
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
    // A URL that names an authority wants the server to be vouched for by it.
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
    let files = certificate_files(options)?;
    if let Some(ca) = files.ca {
        connect = connect.ssl_root_cert(ca);
    }
    if let Some(OwnCertificate { cert, key }) = files.own {
        connect = connect.ssl_client_cert(cert).ssl_client_key(key);
    }
    Ok(connect)
}

/// The files of certificates. They are named as in every driver, or as everywhere with PostgreSQL.
fn certificate_files(options: &Options) -> Result<CertificateFiles> {
    let path = |name: &str, other_name: &str| match (options.text(name), options.text(other_name)) {
        (Some(_), Some(_)) => Err(Error::config(format!("{name} and {other_name} are the same: give one of them"))),
        (one, other) => Ok(one.or(other).map(PathBuf::from)),
    };
    let ca = path("ca", "sslrootcert")?;
    let own = match (path("cert", "sslcert")?, path("key", "sslkey")?) {
        (Some(cert), Some(key)) => Some(OwnCertificate { cert, key }),
        (None, None) => None,
        // The error that every driver gives for one of the two.
        _ => match CertificateFiles::named(options)?.own {
            None => {
                return Err(Error::config("a client's certificate wants both options, sslcert=FILE and sslkey=FILE"));
            }
            own => own,
        },
    };
    Ok(CertificateFiles { ca, own })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tooz_core::driver::{ConnectFuture, Session};
    use tooz_core::{ConnectOptions, Driver, ErrorKind};

    use super::*;

    /// Reads the options as the driver does, and goes no further: the error of kind `Backend` says that they are fine.
    const READER: Driver = Driver::new("postgres", &["postgres"], read_only).options(OPTIONS);
    static CARD: Driver = READER;

    fn read_only(args: ConnectArgs) -> ConnectFuture {
        Box::pin(async move {
            let settings = Settings::read(&args)?;
            Err::<std::sync::Arc<dyn Session>, _>(Error::new(
                ErrorKind::Backend,
                format!("read: {:?} {} {}", settings.address(), settings.schema, settings.waiters),
            ))
        })
    }

    fn read(url: &str, options: &[(&str, &str)]) -> Error {
        let mut connect = ConnectOptions::new(url).unwrap().driver(&CARD).member("m").unwrap();
        for (name, value) in options {
            connect = connect.option(name, *value);
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(connect.connect()).unwrap_err()
    }

    #[test]
    fn a_schema_is_a_name_that_postgresql_keeps_whole() {
        assert_eq!(schema("my schema").unwrap(), "my schema");
        assert_eq!(schema("my$user").unwrap(), "my$user");
        for bad in ["", "pg_catalog", "$user", "a\nb", &"x".repeat(64)] {
            assert!(schema(bad).unwrap_err().to_string().contains("schema"), "{bad}");
        }
    }

    #[test]
    fn a_certificate_wants_its_key_by_whichever_names() {
        let url = "postgres://db.example/x";
        for (cert, key) in [("cert", "key"), ("sslcert", "sslkey"), ("cert", "sslkey"), ("sslcert", "key")] {
            assert_eq!(read(url, &[(cert, "/c"), (key, "/k")]).kind(), ErrorKind::Backend);
            for alone in [cert, key] {
                let error = read(url, &[(alone, "/f")]);
                assert!(error.kind() == ErrorKind::Config && error.to_string().contains(alone), "{error}");
            }
        }
        let error = read(url, &[("cert", "/c"), ("sslcert", "/c")]).to_string();
        assert!(error.contains("the same"), "{error}");
        assert_eq!(read("postgres:///x", &[("host", "/run/pg"), ("port", "1")]).kind(), ErrorKind::Backend);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Each is either taken or refused with `Config`.
        #[test]
        fn no_value_of_an_option_is_too_much(
            name in prop::sample::select(OPTIONS.iter().map(|one| one.name).collect::<Vec<_>>()),
            value in prop_oneof![".{0,70}", "[0-9]{0,22}", "verify-(ca|full)|require|disable"],
            url in prop::sample::select(vec!["postgres://h/d", "postgres://u:p@h:1/d", "postgres:///", "postgres://a,b/d"]),
        ) {
            let error = read(url, &[(name, &value)]);
            prop_assert!(matches!(error.kind(), ErrorKind::Config | ErrorKind::Backend), "{}", error);
        }

        #[test]
        fn a_schema_that_is_taken_stays_what_it_is(name in ".{0,70}") {
            if let Ok(taken) = schema(&name) {
                prop_assert_eq!(&taken, &name);
                prop_assert!(!name.is_empty() && name.len() <= LONGEST_IDENTIFIER);
            }
        }
    }
}
