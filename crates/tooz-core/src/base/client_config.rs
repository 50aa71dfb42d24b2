//! The client's side of TLS, by rustls with ring, as the certificates on disk say at the moment: for drivers that shake hands themselves.
//!
//! Behind the feature `rustls`, since drivers whose client library brings TLS need none of it.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, crypto};

use crate::base::certificate_files::{CertificateFiles, OwnCertificate};
use crate::base::error::{Error, Result};

impl CertificateFiles {
    /// What the files say now: whom to trust, and who the client is. It reads files: on the heart, [`read_certificates`](crate::driver::read_certificates) is for that.
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config), with the option, where a file can't be read or has no certificate in it, or where the system has none to trust.
    pub fn client_config(&self) -> Result<ClientConfig> {
        // The provider is named, so that another one elsewhere in the program makes no difference.
        let config = ClientConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(impossible)?
            .with_root_certificates(authorities(self.ca.as_deref())?);
        match &self.own {
            Some(OwnCertificate { cert, key }) => {
                let wrong = |why: &dyn fmt::Display| CertificateFiles::unusable("key", key, why);
                let secret = PrivateKeyDer::from_pem_file(key).map_err(|why| wrong(&why))?;
                config.with_client_auth_cert(certificates("cert", cert)?, secret).map_err(|why| wrong(&why))
            }
            None => Ok(config.with_no_client_auth()),
        }
    }
}

fn impossible(why: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::config("TLS can't be set up").with_source(why)
}

fn authorities(ca: Option<&Path>) -> Result<RootCertStore> {
    let mut trusted = RootCertStore::empty();
    if let Some(file) = ca {
        for certificate in certificates("ca", file)? {
            trusted.add(certificate).map_err(|why| CertificateFiles::unusable("ca", file, why))?;
        }
        return Ok(trusted);
    }
    // One spoiled certificate of the system is no reason to trust none of the others.
    trusted.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if trusted.is_empty() { Err(CertificateFiles::none_of_the_system()) } else { Ok(trusted) }
}

fn certificates(option: &str, file: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let wrong = |why: &dyn fmt::Display| CertificateFiles::unusable(option, file, why);
    let all = CertificateDer::pem_file_iter(file).map_err(|why| wrong(&why))?;
    let all: Vec<_> = all.collect::<std::result::Result<_, _>>().map_err(|why| wrong(&why))?;
    if all.is_empty() { Err(wrong(&"there is no certificate in it")) } else { Ok(all) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_says_nothing_is_named_with_its_option() {
        let empty = CertificateFiles { ca: Some("/dev/null".into()), own: None };
        let error = empty.client_config().unwrap_err().to_string();
        assert!(error.contains("ca=/dev/null") && error.contains("no certificate"), "{error}");
        let missing = CertificateFiles { ca: Some("/nowhere/ca.pem".into()), own: None };
        assert!(missing.client_config().unwrap_err().to_string().contains("ca=/nowhere/ca.pem"));
    }
}
