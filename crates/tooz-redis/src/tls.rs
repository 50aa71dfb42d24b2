//! TLS for `rediss://`: rustls with ring, trusting the system's authorities or those of `ca`.

#[cfg(feature = "tls")]
use std::path::Path;

use fred::types::config::Config;
#[cfg(feature = "tls")]
use tooz_core::Error;
use tooz_core::Result;
#[cfg(feature = "tls")]
use tooz_core::driver::CertificateFiles;

use crate::options::Encryption;

/// Turns TLS on where the URL wants it.
#[cfg(feature = "tls")]
pub(crate) async fn apply(encryption: &Encryption, config: &mut Config) -> Result<()> {
    if let Encryption::Tls(files) = encryption.clone() {
        // The files are read for each connection, since certificates are renewed; and on a thread that may wait for a disk.
        let making = tokio::task::spawn_blocking(move || connector(&files));
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
fn connector(files: &CertificateFiles) -> Result<fred::types::config::TlsConnector> {
    use std::sync::Arc;

    use fred::rustls::pki_types::PrivateKeyDer;
    use fred::rustls::pki_types::pem::PemObject;
    use fred::rustls::{ClientConfig, RootCertStore, crypto};

    let mut trusted = RootCertStore::empty();
    if let Some(file) = &files.ca {
        for certificate in certificates("ca", file)? {
            trusted.add(certificate).map_err(|why| CertificateFiles::unusable("ca", file, why))?;
        }
    } else {
        // One spoiled certificate of the system is no reason to trust none of the others.
        trusted.add_parsable_certificates(fred::rustls_native_certs::load_native_certs().certs);
        if trusted.is_empty() {
            return Err(CertificateFiles::none_of_the_system());
        }
    }
    // The provider is named, so that another one elsewhere in the program makes no difference.
    let config = ClientConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::config("TLS can't be set up").with_source(error))?
        .with_root_certificates(trusted);
    let config = match &files.own {
        Some(own) => {
            let unusable = |why: &dyn std::fmt::Display| CertificateFiles::unusable("key", &own.key, why);
            let key = PrivateKeyDer::from_pem_file(&own.key).map_err(|why| unusable(&why))?;
            let chain = certificates("cert", &own.cert)?;
            config.with_client_auth_cert(chain, key).map_err(|why| unusable(&why))?
        }
        None => config.with_no_client_auth(),
    };
    Ok(config.into())
}

#[cfg(feature = "tls")]
fn certificates(option: &str, file: &Path) -> Result<Vec<fred::rustls::pki_types::CertificateDer<'static>>> {
    use fred::rustls::pki_types::CertificateDer;
    use fred::rustls::pki_types::pem::PemObject;

    let unusable = |why: &dyn std::fmt::Display| CertificateFiles::unusable(option, file, why);
    let all = CertificateDer::pem_file_iter(file).map_err(|why| unusable(&why))?;
    let all: Vec<_> = all.collect::<std::result::Result<_, _>>().map_err(|why| unusable(&why))?;
    if all.is_empty() {
        return Err(unusable(&"there is no certificate in it"));
    }
    Ok(all)
}
