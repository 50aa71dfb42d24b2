//! The URL: `memory://NAME`, and nothing else.

use tooz_core::driver::BackendUrl;
use tooz_core::{Error, Result};

/// The name of the store; `memory:` alone is the store `default`.
pub(crate) fn store_name(url: &BackendUrl) -> Result<String> {
    let wrong = |why: &str| Err(Error::config(format!("{why}; the URL is memory://NAME")));
    if url.username().is_some() || url.password().is_some() {
        return wrong("memory has no users");
    }
    if !matches!(url.path(), "" | "/") {
        return wrong("memory has no paths");
    }
    match url.hosts() {
        [] => Ok("default".to_owned()),
        [host] if host.port.is_none() => Ok(host.name.clone()),
        [_] => wrong("memory has no ports"),
        _ => wrong("memory is one store, not several"),
    }
}
