//! TLS for `rediss://`: rustls with ring, trusting the system's authorities or those of `ca_file`.

#[cfg(feature = "tls")]
use std::path::Path;

use fred::types::config::Config;
use tooz_core::Result;

use crate::options::Encryption;

/// Turns TLS on where the URL wants it.
#[cfg(feature = "tls")]
pub(crate) fn apply(encryption: &Encryption, config: &mut Config) -> Result<()> {
    if let Encryption::Tls { authorities } = encryption {
        config.tls = Some(connector(authorities.as_deref())?.into());
    }
    Ok(())
}

/// Without the feature, reading the options has refused `rediss://` already.
#[cfg(not(feature = "tls"))]
#[allow(clippy::unnecessary_wraps)]
pub(crate) fn apply(_encryption: &Encryption, _config: &mut Config) -> Result<()> {
    Ok(())
}

#[cfg(feature = "tls")]
fn connector(authorities: Option<&Path>) -> Result<fred::types::config::TlsConnector> {
    use std::sync::Arc;

    use fred::rustls::pki_types::CertificateDer;
    use fred::rustls::pki_types::pem::PemObject;
    use fred::rustls::{ClientConfig, RootCertStore, crypto};
    use tooz_core::Error;

    let mut trusted = RootCertStore::empty();
    if let Some(file) = authorities {
        let wrong = |why: &dyn std::fmt::Display| {
            Error::config(format!("ca_file={} is no PEM file of certificates: {why}", file.display()))
        };
        for certificate in CertificateDer::pem_file_iter(file).map_err(|error| wrong(&error))? {
            let certificate = certificate.map_err(|error| wrong(&error))?;
            trusted.add(certificate).map_err(|error| wrong(&error))?;
        }
        if trusted.is_empty() {
            return Err(wrong(&"there is no certificate in it"));
        }
    } else {
        // One spoiled certificate of the system is no reason to trust none of the others.
        trusted.add_parsable_certificates(fred::rustls_native_certs::load_native_certs().certs);
        if trusted.is_empty() {
            return Err(Error::config("this system has no certificates to trust: name some with ca_file="));
        }
    }
    // The provider is named, so that another one elsewhere in the program makes no difference.
    let config = ClientConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::config("TLS can't be set up").with_source(error))?
        .with_root_certificates(trusted)
        .with_no_client_auth();
    Ok(config.into())
}
