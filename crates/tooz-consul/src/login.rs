//! The token of Consul's ACLs: read again for each connection that is made, so that one which is changed in its file needs no restart.

use std::path::PathBuf;
use std::sync::Arc;

use hyper::header::HeaderValue;
use tokio::sync::Semaphore;
use tooz_core::{Error, ErrorKind, Result};

/// No token is as long as this, in bytes.
const LONGEST: usize = 4096;

/// Where the token comes from.
#[derive(Clone)]
pub(crate) enum Login {
    /// Agents that want none.
    Nobody,
    Token(HeaderValue),
    File {
        path: PathBuf,
        /// A disk that hangs is asked once.
        turn: Arc<Semaphore>,
    },
}

impl Login {
    /// What the options `token` and `token_file` say.
    pub(crate) fn read(token: Option<&str>, file: Option<&str>) -> Result<Self> {
        match (token, file) {
            (Some(_), Some(_)) => Err(Error::config("options token and token_file at once: give one of them")),
            (Some(token), None) => header(token, "option token").map(Login::Token),
            (None, Some("")) => Err(Error::config("token_file is empty: it names a file")),
            (None, Some(path)) => Ok(Login::File { path: path.into(), turn: Arc::new(Semaphore::new(1)) }),
            (None, None) => Ok(Login::Nobody),
        }
    }

    /// The token as it is now.
    pub(crate) async fn token(&self) -> Result<Option<HeaderValue>> {
        let (path, turn) = match self {
            Login::Nobody => return Ok(None),
            Login::Token(token) => return Ok(Some(token.clone())),
            Login::File { path, turn } => (path.clone(), Arc::clone(turn)),
        };
        let gone = || Error::new(ErrorKind::Unavailable, "the file with the token can't be read now");
        let turn = turn.acquire_owned().await.map_err(|_| gone())?;
        let reading = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            let unusable = |why: String| Error::config(format!("token_file={} can't be used: {why}", path.display()));
            let read = std::fs::read_to_string(&path).map_err(|why| unusable(why.to_string()))?;
            header(read.trim_end_matches(['\n', '\r']), "what stands in token_file")
                .map_err(|why| unusable(why.to_string()))
        });
        reading.await.map_err(|_| gone())?.map(Some)
    }

    /// Whether it may be another the next time.
    pub(crate) fn may_change(&self) -> bool {
        matches!(self, Login::File { .. })
    }

    /// Whether the agents are told one.
    pub(crate) fn is_somebody(&self) -> bool {
        !matches!(self, Login::Nobody)
    }
}

/// The token is never a part of what is said.
fn header(token: &str, what: &str) -> Result<HeaderValue> {
    if token.is_empty() || token.len() > LONGEST {
        return Err(Error::config(format!("{what} is no token: it is empty, or too long")));
    }
    let mut value = HeaderValue::from_str(token)
        .map_err(|_| Error::config(format!("{what} is no token: it has characters in it that no token has")))?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_token_in_a_file_is_read_each_time() {
        let file = std::env::temp_dir().join(format!("tooz-consul-token-{}", std::process::id()));
        std::fs::write(&file, "one\n").unwrap();
        let login = Login::read(None, file.to_str()).unwrap();
        assert_eq!(login.token().await.unwrap().unwrap(), "one");
        std::fs::write(&file, "two").unwrap();
        assert_eq!(login.token().await.unwrap().unwrap(), "two");
        std::fs::write(&file, "").unwrap();
        assert_eq!(login.token().await.unwrap_err().kind(), ErrorKind::Config);
        std::fs::remove_file(&file).unwrap();
        assert!(login.token().await.unwrap_err().to_string().contains("token_file"));
    }

    #[test]
    fn a_wrong_token_is_refused_without_being_shown() {
        let error = Login::read(Some("hunter2\u{7f}"), None).err().unwrap().to_string();
        assert!(!error.contains("hunter2"), "{error}");
        assert!(Login::read(Some("a"), Some("b")).is_err());
        assert!(!Login::read(None, None).unwrap().is_somebody());
    }
}
