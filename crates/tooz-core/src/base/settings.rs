//! What core itself reads out of the options of a URL and the builder.

use std::time::Duration;

use crate::base::error::{Error, Result};
use crate::base::id::Namespace;
use crate::base::options::Options;

/// What core itself reads out of the options.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) namespace: Namespace,
    pub(crate) session_timeout: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) operation_timeout: Duration,
    pub(crate) stall_timeout: Option<Duration>,
}

impl Settings {
    pub(crate) fn read(options: &Options) -> Result<Self> {
        let namespace = Namespace::new(options.text("namespace").unwrap_or("tooz"))?;
        let positive = |name: &str, default: Duration| match options.duration(name)? {
            Some(duration) if duration.is_zero() => {
                Err(Error::config(format!("option {name} must be longer than zero")))
            }
            Some(duration) => Ok(duration),
            None => Ok(default),
        };
        Ok(Settings {
            namespace,
            session_timeout: positive("session_timeout", Duration::from_secs(10))?,
            connect_timeout: positive("connect_timeout", Duration::from_secs(5))?,
            operation_timeout: positive("operation_timeout", Duration::from_secs(5))?,
            stall_timeout: match options.text("stall_timeout") {
                Some(_) => Some(positive("stall_timeout", Duration::ZERO)?),
                None => None,
            },
        })
    }
}
