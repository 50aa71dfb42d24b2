//! What the library and its clients say of themselves: `-v`, `-vv`, or `RUST_LOG`, which says more exactly what is wanted.

use std::io::{self, Write};
use std::time::SystemTime;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::{FmtSpan, Writer};
use tracing_subscriber::fmt::time::FormatTime;

use super::{stamp, voice};

/// What is said without a word from the user: nothing, since that is told as events.
const LEVELS: [&str; 3] = ["off", "tooz=debug", "tooz=trace,debug"];

/// Begins to tell, if it is asked for. A filter in `RUST_LOG` that can't be read is an error.
pub(crate) fn begin(verbosity: u8) -> Result<(), String> {
    let own = std::env::var(EnvFilter::DEFAULT_ENV).ok().filter(|filter| !filter.is_empty());
    let directives = own.as_deref().unwrap_or(LEVELS[usize::from(verbosity).min(LEVELS.len() - 1)]);
    if directives == LEVELS[0] {
        return Ok(());
    }
    let filter = EnvFilter::try_new(directives).map_err(|error| {
        format!("RUST_LOG={directives:?} is no filter: {error}; one looks like tooz=debug or info,tooz_redis=trace")
    })?;
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        // What takes time is a span: its end says how much.
        .with_span_events(FmtSpan::CLOSE)
        .with_ansi(false)
        .with_timer(LocalTime)
        .with_writer(TraceLine::default);
    // There is one already only where this is called twice.
    let _ = subscriber.try_init();
    Ok(())
}

/// The local time, as in all lines.
struct LocalTime;

impl FormatTime for LocalTime {
    fn format_time(&self, writer: &mut Writer<'_>) -> std::fmt::Result {
        writer.write_str(&stamp::local(SystemTime::now()))
    }
}

/// One line, said as a whole when it is complete.
#[derive(Default)]
struct TraceLine(Vec<u8>);

impl Write for TraceLine {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for TraceLine {
    fn drop(&mut self) {
        if !self.0.is_empty() {
            voice::line(&String::from_utf8_lossy(&self.0));
        }
    }
}
