//! TLS by rustls with ring, behind the feature `tls`; without the feature, an error that says so.

use tonic::transport::Endpoint;
use tooz_core::{Error, Options, Result};

/// How connections are secured.
#[derive(Clone)]
pub(crate) struct Tls(
    #[cfg(feature = "tls")] tonic::transport::ClientTlsConfig,
    #[cfg(not(feature = "tls"))] std::convert::Infallible,
);

#[cfg(feature = "tls")]
impl Tls {
    /// Reads the certificates that the options name.
    pub(crate) fn read(options: &Options) -> Result<Self> {
        use tonic::transport::{Certificate, ClientTlsConfig, Identity};
        let file = |name: &str| -> Result<Option<Vec<u8>>> {
            let Some(path) = options.text(name) else { return Ok(None) };
            std::fs::read(path).map(Some).map_err(|error| {
                Error::config(format!("option {name}={path:?} names a PEM file that can't be read: {error}"))
                    .with_source(error)
            })
        };
        let mut config = ClientTlsConfig::new();
        config = match file("ca")? {
            Some(pem) => config.ca_certificate(Certificate::from_pem(pem)),
            None => config.with_native_roots(),
        };
        config = match (file("cert")?, file("key")?) {
            (Some(cert), Some(key)) => config.identity(Identity::from_pem(cert, key)),
            (None, None) => config,
            _ => return Err(Error::config("a client's certificate wants both options, cert=FILE and key=FILE")),
        };
        Ok(Tls(config))
    }

    /// An endpoint that is reached by TLS.
    pub(crate) fn secure(&self, endpoint: Endpoint) -> Result<Endpoint> {
        endpoint.tls_config(self.0.clone()).map_err(|error| {
            Error::config(format!(
                "TLS can't be set up: {}; see to the options ca, cert and key, which name PEM files",
                crate::error::chain(&error)
            ))
            .with_source(error)
        })
    }
}

#[cfg(not(feature = "tls"))]
impl Tls {
    pub(crate) fn read(_options: &Options) -> Result<Self> {
        Err(Error::config("this program was built without TLS for etcd: enable the feature `tls`, or use etcd://"))
    }

    pub(crate) fn secure(&self, _endpoint: Endpoint) -> Result<Endpoint> {
        match self.0 {}
    }
}
