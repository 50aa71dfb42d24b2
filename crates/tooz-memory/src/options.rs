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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn each_url_names_one_store_or_says_what_would_be_right(text: String, rest in "[a-z0-9.:,@/-]{0,20}") {
            for text in [text, format!("memory://{rest}")] {
                let Ok(url) = BackendUrl::parse(&text) else { continue };
                match store_name(&url) {
                    Ok(name) => prop_assert!(!name.is_empty()),
                    Err(error) => prop_assert!(error.to_string().contains("memory://NAME")),
                }
            }
        }
    }
}
