//! A certificate for one server, and the authority that vouches for it and for nothing else.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};

/// The files in a server's folder. They go when it goes.
#[derive(Debug)]
pub(crate) struct Tls {
    /// The certificate of the authority, for clients.
    pub(crate) ca: PathBuf,
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

impl Tls {
    /// Makes a new authority and a certificate for `127.0.0.1` and `localhost`.
    pub(crate) fn make(folder: &Path) -> Result<Self> {
        let tls =
            Tls { ca: folder.join("ca.pem"), certificate: folder.join("server.pem"), key: folder.join("server.key") };
        tls.write().context("cannot make a certificate")?;
        Ok(tls)
    }

    fn write(&self) -> Result<()> {
        let mut params = CertificateParams::new(Vec::<String>::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, "tooz-testbed authority");
        let key = KeyPair::generate()?;
        fs::write(&self.ca, pem("CERTIFICATE", params.self_signed(&key)?.der()))?;
        let authority = Issuer::new(params, key);

        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned(), "localhost".to_owned()])?;
        params.distinguished_name.push(DnType::CommonName, "tooz-testbed server");
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        fs::write(&self.certificate, pem("CERTIFICATE", params.signed_by(&key, &authority)?.der()))?;
        // The folder is this user's alone, and so is the key.
        fs::write(&self.key, pem("PRIVATE KEY", &key.serialize_der()))?;
        Ok(())
    }
}

/// The form that servers read. The certificates' own crate can write it, but brings a second base64 into the workspace.
fn pem(label: &str, bytes: &[u8]) -> String {
    let text = BASE64_STANDARD.encode(bytes);
    let mut pem = format!("-----BEGIN {label}-----\n");
    // It is all ASCII, so that any place is one to cut at.
    for start in (0..text.len()).step_by(64) {
        pem += &text[start..text.len().min(start + 64)];
        pem.push('\n');
    }
    pem + &format!("-----END {label}-----\n")
}
