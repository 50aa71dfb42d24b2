//! TLS for `rediss://`: rustls with ring, trusting the system's authorities or those of `ca`.

#[cfg(feature = "tls")]
use std::path::Path;

use fred::types::config::Config;
#[cfg(feature = "tls")]
use tooz_core::Error;
use tooz_core::Result;

use crate::options::Encryption;

/// Turns TLS on where the URL wants it.
#[cfg(feature = "tls")]
pub(crate) async fn apply(encryption: &Encryption, config: &mut Config) -> Result<()> {
    if let Encryption::Tls { authorities, identity } = encryption.clone() {
        // The files are read for each connection, since certificates are renewed; and on a thread that may wait for a disk.
        let making = tokio::task::spawn_blocking(move || connector(authorities.as_deref(), identity.as_ref()));
        let made = making.await.map_err(|error| Error::config("TLS can't be set up").with_source(error))?;
        config.tls = Some(made?.into());
    }
    Ok(())
}

/// Without the feature, reading the options has refused `rediss://` already.
#[cfg(not(feature = "tls"))]
#[allow(clippy::unnecessary_wraps, clippy::unused_async)]
pub(crate) async fn apply(_encryption: &Encryption, _config: &mut Config) -> Result<()> {
    Ok(())
}

#[cfg(feature = "tls")]
fn connector(
    authorities: Option<&Path>,
    identity: Option<&crate::options::Identity>,
) -> Result<fred::types::config::TlsConnector> {
    use std::sync::Arc;

    use fred::rustls::pki_types::PrivateKeyDer;
    use fred::rustls::pki_types::pem::PemObject;
    use fred::rustls::{ClientConfig, RootCertStore, crypto};

    let mut trusted = RootCertStore::empty();
    if let Some(file) = authorities {
        for certificate in certificates("ca", file)? {
            trusted.add(certificate).map_err(|why| unusable("ca", file, &why))?;
        }
    } else {
        // One spoiled certificate of the system is no reason to trust none of the others.
        trusted.add_parsable_certificates(fred::rustls_native_certs::load_native_certs().certs);
        if trusted.is_empty() {
            return Err(Error::config("this system has no certificates to trust: name some with ca="));
        }
    }
    // The provider is named, so that another one elsewhere in the program makes no difference.
    let config = ClientConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::config("TLS can't be set up").with_source(error))?
        .with_root_certificates(trusted);
    let config = match identity {
        Some(identity) => {
            let key =
                PrivateKeyDer::from_pem_file(&identity.key).map_err(|why| unusable("key", &identity.key, &why))?;
            let chain = certificates("cert", &identity.certificate)?;
            config.with_client_auth_cert(chain, key).map_err(|why| unusable("key", &identity.key, &why))?
        }
        None => config.with_no_client_auth(),
    };
    Ok(config.into())
}

#[cfg(feature = "tls")]
fn certificates(option: &str, file: &Path) -> Result<Vec<fred::rustls::pki_types::CertificateDer<'static>>> {
    use fred::rustls::pki_types::CertificateDer;
    use fred::rustls::pki_types::pem::PemObject;

    let all = CertificateDer::pem_file_iter(file).map_err(|why| unusable(option, file, &why))?;
    let all: Vec<_> = all.collect::<std::result::Result<_, _>>().map_err(|why| unusable(option, file, &why))?;
    if all.is_empty() {
        return Err(unusable(option, file, &"there is no certificate in it"));
    }
    Ok(all)
}

#[cfg(feature = "tls")]
fn unusable(option: &str, file: &Path, why: &dyn std::fmt::Display) -> Error {
    Error::config(format!("option {option}={} names a PEM file that can't be used: {why}", file.display()))
}
