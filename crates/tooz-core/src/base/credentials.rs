//! The user and the password of a log-in: read anew for each connection, so that a password that is changed at the server and in its
//! file needs no restart.

use std::fmt;
use std::io::Read as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::base::error::{Error, ErrorKind, Result};
use crate::base::options::backend_url::BackendUrl;
use crate::base::options::{Options, PASSWORD_FILE};

/// How many questions for credentials may be under way at once.
const QUESTIONS: usize = 4;

/// The longest file that is taken for one with a password, in bytes.
const LONGEST: u64 = 64 * 1024;

/// A user and a password, each where there is one. `Debug` shows neither.
#[derive(Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Credentials {
    /// The user.
    pub username: Option<String>,
    /// The password, or a token where the backend has tokens.
    pub password: Option<String>,
}

impl Credentials {
    /// Of a user with a password.
    pub fn new(username: impl Into<String>, password: impl Into<String>) -> Self {
        Credentials { username: Some(username.into()), password: Some(password.into()) }
    }

    /// A password or token alone.
    pub fn password(password: impl Into<String>) -> Self {
        Credentials { username: None, password: Some(password.into()) }
    }
}

/// Says only which of the two there are.
impl fmt::Debug for Credentials {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let said = |there: bool| if there { "given" } else { "none" };
        formatter
            .debug_struct("Credentials")
            .field("username", &said(self.username.is_some()))
            .field("password", &said(self.password.is_some()))
            .finish()
    }
}

type Ask = Arc<dyn Fn() -> Result<Credentials> + Send + Sync>;

/// Where the credentials of a connection come from: the URL, a file, or a function of the application's.
///
/// A driver calls [`read`](Self::read) for each connection that it makes, also for the hundredth.
#[derive(Clone)]
pub struct CredentialSource {
    from: Origin,
    /// A question that hangs can't be taken back. So many may hang; after that the next one waits.
    questions: Arc<Semaphore>,
}

#[derive(Clone)]
enum Origin {
    Url(Credentials),
    File { username: Option<String>, path: PathBuf },
    Application(Ask),
}

impl CredentialSource {
    /// A value from the builder wins; a file and a password in the URL at once are an error.
    pub(crate) fn choose(url: &BackendUrl, options: &Options, asked: Option<Ask>) -> Result<Self> {
        if let Some(ask) = asked {
            if !options.knows(PASSWORD_FILE.name) {
                return Err(Error::config("this driver logs in nowhere: it takes no credentials"));
            }
            return Ok(CredentialSource { from: Origin::Application(ask), questions: questions() });
        }
        let (username, password) = (url.username().map(str::to_owned), url.password().map(str::to_owned));
        let from = match (options.text(PASSWORD_FILE.name), password) {
            (Some(_), Some(_)) => {
                return Err(Error::config("a password in the URL and password_file at once: give one of them"));
            }
            (Some(""), None) => return Err(Error::config("password_file is empty: it names a file")),
            (Some(path), None) => Origin::File { username, path: path.into() },
            (None, password) => Origin::Url(Credentials { username, password }),
        };
        Ok(CredentialSource { from, questions: questions() })
    }

    /// The credentials as they are now. A file is read, and the application asked, on a thread that may block.
    ///
    /// # Errors
    /// `Config`: the file can't be read, is empty, too long or no UTF-8. An error of the application is passed on.
    ///
    /// # Cancel safety
    /// Dropping it loses nothing. A question that was begun goes on in its thread, and its answer is dropped.
    pub async fn read(&self) -> Result<Credentials> {
        let from = match &self.from {
            Origin::Url(credentials) => return Ok(credentials.clone()),
            from => from.clone(),
        };
        let Ok(turn) = Arc::clone(&self.questions).acquire_owned().await else { return Err(Error::closed()) };
        let question = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            ask(from)
        });
        question.await.unwrap_or_else(|_| Err(Error::closed()))
    }

    /// Whether the credentials may be others the next time.
    pub fn may_change(&self) -> bool {
        !matches!(self.from, Origin::Url(_))
    }
}

impl fmt::Debug for CredentialSource {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.from {
            Origin::Url(credentials) => formatter.debug_tuple("Url").field(credentials).finish(),
            Origin::File { path, .. } => formatter.debug_tuple("File").field(&shown(path)).finish(),
            Origin::Application(_) => formatter.write_str("Application"),
        }
    }
}

/// The path as it may be shown: one that is not absolute may be the password itself, given in the wrong place.
fn shown(path: &Path) -> String {
    if path.is_absolute() { path.display().to_string() } else { "(a relative path, or the password itself)".to_owned() }
}

fn questions() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(QUESTIONS))
}

fn ask(from: Origin) -> Result<Credentials> {
    match from {
        Origin::Url(credentials) => Ok(credentials),
        Origin::File { username, path } => {
            password_in("password_file", &path).map(|password| Credentials { username, password: Some(password) })
        }
        Origin::Application(ask) => catch_unwind(AssertUnwindSafe(|| ask())).unwrap_or_else(|_| {
            Err(Error::new(ErrorKind::Backend, "the application's function for credentials panicked"))
        }),
    }
}

/// The password that stands in the file which that option names: the whole of it, without the end of the line that editors add. (Its first
/// line alone would hide the rest of a wrong file.) It blocks for as long as the disk takes.
///
/// # Errors
/// `Config`, for a file that can't be read, is none, is empty, too long or not UTF-8.
pub fn password_in(option: &str, path: &Path) -> Result<String> {
    let wrong = |why: &str| Error::config(format!("{option} {}: {why}", shown(path)));
    let unreadable = |error: std::io::Error| wrong(&format!("it can't be read: {error}")).with_source(error);
    // A pipe would be waited for, and has a password but once; a device has no end.
    if !std::fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(wrong("it is no regular file, and is to be read again for each connection"));
    }
    let mut bytes = Vec::new();
    std::fs::File::open(path).map_err(unreadable)?.take(LONGEST + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > LONGEST {
        return Err(wrong("it is too long for a password"));
    }
    let text = String::from_utf8(bytes).map_err(|_| wrong("it is no UTF-8"))?;
    let password = text.trim_end_matches(['\r', '\n']);
    if password.is_empty() {
        return Err(wrong("it is empty"));
    }
    Ok(password.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::options::OptionSpec;

    const OPTIONS: &[OptionSpec] = &[PASSWORD_FILE];

    fn source(url: &str) -> Result<CredentialSource> {
        let url = BackendUrl::parse(url)?;
        let options = url.options("d", OPTIONS)?;
        CredentialSource::choose(&url, &options, None)
    }

    #[tokio::test]
    async fn a_file_is_read_again_each_time() {
        let path = std::env::temp_dir().join(format!("tooz-credentials-{}", std::process::id()));
        let found = source(&format!("d://bob@h?password_file={}", path.display())).unwrap();
        assert_eq!(found.read().await.unwrap_err().kind(), ErrorKind::Config);
        for password in ["one", "two words"] {
            std::fs::write(&path, format!("{password}\n")).unwrap();
            assert_eq!(found.read().await.unwrap(), Credentials::new("bob", password));
        }
        assert!(
            source("d://bob@h?password_file=/dev/zero")
                .unwrap()
                .read()
                .await
                .unwrap_err()
                .to_string()
                .contains("no regular file")
        );
        std::fs::write(&path, "x".repeat(100_000)).unwrap();
        assert!(found.read().await.unwrap_err().to_string().contains("too long"));
        std::fs::write(&path, "\n").unwrap();
        assert!(found.read().await.unwrap_err().to_string().contains("empty"));
        std::fs::remove_file(&path).unwrap();
    }

    #[tokio::test]
    async fn what_the_application_says_wins_and_its_panic_is_an_error() {
        let url = BackendUrl::parse("d://bob:old@h").unwrap();
        let options = url.options("d", OPTIONS).unwrap();
        let new =
            CredentialSource::choose(&url, &options, Some(Arc::new(|| Ok(Credentials::password("new"))))).unwrap();
        assert_eq!(new.read().await.unwrap(), Credentials::password("new"));
        let broken = CredentialSource::choose(&url, &options, Some(Arc::new(|| panic!("as part of a test")))).unwrap();
        assert_eq!(broken.read().await.unwrap_err().kind(), ErrorKind::Backend);
        let empty = url.options("d", &[]).unwrap();
        assert!(CredentialSource::choose(&url, &empty, Some(Arc::new(|| Ok(Credentials::default())))).is_err());
    }

    #[test]
    fn a_password_is_given_once_and_never_shown() {
        assert!(source("d://bob:hunter2@h?password_file=/x").unwrap_err().to_string().contains("one of them"));
        assert!(!format!("{:?}", source("d://bob:hunter2@h").unwrap()).contains("hunter2"));
        assert!(!format!("{:?}", Credentials::new("bob", "hunter2")).contains("hunter2"));
    }
}
