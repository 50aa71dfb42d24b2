//! Where the certificates of TLS stand: the options `ca`, `cert` and `key` of every driver, and what is said of files that can't be used.
//!
//! What is read from them: `client_config`, behind a feature. A driver whose client library brings TLS hands over the paths.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::base::error::{Error, Result};
use crate::base::options::Options;

/// The PEM files that secure a connection. They are read for each connection that is made, since certificates are renewed on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The authorities to trust; `None`: those of the system.
    pub ca: Option<PathBuf>,
    /// The client's own certificate, for servers that ask for it.
    pub own: Option<OwnCertificate>,
}

/// The certificate of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnCertificate {
    /// The file of the certificate, with those that it depends on behind it.
    pub cert: PathBuf,
    /// The file of its key.
    pub key: PathBuf,
}

impl CertificateFiles {
    /// The files that the options `ca`, `cert` and `key` name.
    ///
    /// # Errors
    /// `Config` where only one of `cert` and `key` is there, or a path names what can't be read again and again, such as a pipe.
    pub fn named(options: &Options) -> Result<Self> {
        let path = |option: &str| {
            let path = options.text(option).map(PathBuf::from);
            match &path {
                Some(file) if is_something_else(file) => Err(Self::unusable(option, file, "it is no regular file")),
                _ => Ok(path),
            }
        };
        let own = match (path("cert")?, path("key")?) {
            (Some(cert), Some(key)) => Some(OwnCertificate { cert, key }),
            (None, None) => None,
            _ => return Err(Error::config("a client's certificate wants both options, cert=FILE and key=FILE")),
        };
        Ok(CertificateFiles { ca: path("ca")?, own })
    }

    /// The error of a file that can't be used.
    pub fn unusable(option: &str, file: &Path, why: impl fmt::Display) -> Error {
        Error::config(format!("option {option}={} names a PEM file that can't be used: {why}", file.display()))
    }

    /// The error of a system without authorities.
    pub fn none_of_the_system() -> Error {
        Error::config("this system has no certificates to trust: name some with the option ca=FILE")
    }
}

/// Whether that stands there and is no file. What is not there may come until it is needed.
fn is_something_else(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|there| !there.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::options::backend_url::BackendUrl;
    use crate::base::options::{OptionSpec, OptionValue};

    const OPTIONS: &[OptionSpec] = &[
        OptionSpec::new("ca", OptionValue::Text, "none", "a file"),
        OptionSpec::new("cert", OptionValue::Text, "none", "a file"),
    ];

    fn named(rest: &str) -> Result<CertificateFiles> {
        let url = BackendUrl::parse(&format!("d://h?{rest}")).unwrap();
        CertificateFiles::named(&url.options("d", OPTIONS).unwrap())
    }

    #[test]
    fn a_path_that_is_no_file_is_refused_and_one_that_is_not_there_yet_is_not() {
        assert!(named("ca=/dev/null").unwrap_err().to_string().contains("ca=/dev/null"));
        assert!(named("cert=/nowhere").unwrap_err().to_string().contains("both options"));
        assert_eq!(named("ca=/nowhere").unwrap().ca.unwrap(), Path::new("/nowhere"));
    }
}
