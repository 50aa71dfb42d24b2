//! What the library and its clients say of themselves: `-v`, `-vv`, or `RUST_LOG`, which says more exactly what is wanted.

use std::fmt;
use std::io::{self, Write};
use std::time::SystemTime;

use tracing::Subscriber;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::{FmtSpan, Writer};
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields};
use tracing_subscriber::registry::LookupSpan;

use super::event::Event;
use super::words::on_one_line;
use super::{manner, stamp, voice};

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
    let _ = if manner().json { subscriber.event_format(JsonEvent).try_init() } else { subscriber.try_init() };
    Ok(())
}

/// The local time, as in all lines.
struct LocalTime;

impl FormatTime for LocalTime {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        writer.write_str(&stamp::local(SystemTime::now()))
    }
}

/// As JSON, like all that is said then: an event as each other.
struct JsonEvent;

impl<S, N> FormatEvent<S, N> for JsonEvent
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &tracing::Event<'_>,
    ) -> fmt::Result {
        let mut message = String::new();
        context.format_fields(Writer::new(&mut message), event)?;
        let mut spans = Vec::new();
        for span in context.event_scope().into_iter().flat_map(tracing_subscriber::registry::Scope::from_root) {
            let extensions = span.extensions();
            let fields =
                extensions.get::<FormattedFields<N>>().map(|fields| fields.fields.as_str()).unwrap_or_default();
            spans.push(on_one_line(format!("{} {fields}", span.name()).trim_end()));
        }
        let told = Event::new("trace", "").with("level", event.metadata().level().as_str());
        let told = told.with("target", event.metadata().target()).with("spans", spans);
        writer.write_str(&told.with("message", on_one_line(&message)).json())
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
        let text = String::from_utf8_lossy(&self.0);
        if text.is_empty() {
            return;
        }
        // JSON that is cut off would be none any more.
        voice::line(if manner().json { text.into_owned() } else { on_one_line(&text) });
    }
}
