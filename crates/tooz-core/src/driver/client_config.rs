//! What the certificates on disk say, asked from the heart.

use rustls::ClientConfig;

use crate::base::certificate_files::CertificateFiles;
use crate::base::error::{Error, Result};

/// [`CertificateFiles::client_config`] on a thread that may block: the system's certificates are many, and a disk may be slow.
///
/// # Errors
/// As there.
///
/// # Cancel safety
/// Dropping it changes nothing.
pub async fn read_certificates(files: &CertificateFiles) -> Result<ClientConfig> {
    let files = files.clone();
    let reading = tokio::task::spawn_blocking(move || files.client_config());
    reading.await.map_err(|why| Error::config("TLS can't be set up").with_source(why))?
}
