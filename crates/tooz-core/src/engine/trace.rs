//! What the heart tells to `tracing`: handed to a thread of its own, so that a subscriber that blocks can't stop the beat.
//!
//! That holds for the client libraries of the drivers too, which log wherever they run: on the heart and while a driver is polled on a
//! caller's thread, their events are taken down in [`Forwarder`] and told again by that thread. (Their spans are not.) What a library
//! tells to the older `log` crate passes by here.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};

use tracing::dispatcher::{self, Dispatch};
use tracing::field::{Field, Value, Visit, display};
use tracing::level_filters::LevelFilter;
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata, Subscriber, span};

use crate::base::contain::caught;

type Tale = Box<dyn FnOnce() + Send>;

/// How many tales wait for a subscriber that is slow, and how many of them may be those of client libraries.
const QUEUE: usize = 512;
const OF_LIBRARIES: usize = QUEUE / 2;

/// Tells later, on the thread `tooz-trace`. An event that does not fit into the queue is not told.
pub(crate) fn tell(tale: impl FnOnce() + Send + 'static) -> bool {
    static TELLER: OnceLock<Option<SyncSender<Tale>>> = OnceLock::new();
    let teller = TELLER.get_or_init(|| {
        let (sender, receiver) = sync_channel::<Tale>(QUEUE);
        let thread = std::thread::Builder::new().name("tooz-trace".to_owned()).spawn(move || {
            while let Ok(tale) = receiver.recv() {
                // A subscriber that panics has had its say.
                let _ = caught(tale);
            }
        });
        thread.is_ok().then_some(sender)
    });
    teller.as_ref().is_some_and(|teller| teller.try_send(Box::new(tale)).is_ok())
}

/// Whether any subscriber may want what is told at that level. No subscriber is asked, so that none can hold this up. Without one nothing has to be told,
/// which would wake a thread each time.
pub(crate) fn is_heard(level: Level) -> bool {
    level <= LevelFilter::current()
}

/// Runs what the heart's thread does: nothing in it waits for a subscriber.
pub(crate) fn quietly<T>(deed: impl FnOnce() -> T) -> T {
    dispatcher::with_default(forwarder(), deed)
}

/// Lets no subscriber hold up one step on a caller's thread, while the guard lives. Costs nothing without a subscriber.
pub(crate) fn quiet_step() -> Option<dispatcher::DefaultGuard> {
    (LevelFilter::current() != LevelFilter::OFF).then(|| dispatcher::set_default(forwarder()))
}

fn forwarder() -> &'static Dispatch {
    static FORWARDER: OnceLock<Dispatch> = OnceLock::new();
    FORWARDER.get_or_init(|| Dispatch::new(Forwarder))
}

/// Takes events down where they happen, and has them told by the thread that may be blocked.
struct Forwarder;

/// How many events of libraries wait to be told.
static WAITING: AtomicUsize = AtomicUsize::new(0);

impl Subscriber for Forwarder {
    /// An event that the application's subscriber does not want is not wanted here: both are asked, and the answers combined.
    fn register_callsite(&self, _metadata: &'static Metadata<'static>) -> Interest {
        Interest::never()
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::OFF)
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        !metadata.is_span() && *metadata.level() <= LevelFilter::current()
    }

    fn event(&self, event: &Event<'_>) {
        if WAITING.fetch_add(1, Ordering::Relaxed) >= OF_LIBRARIES {
            WAITING.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        let metadata = event.metadata();
        let mut taken_down = EventFields::default();
        event.record(&mut taken_down);
        let is_queued = tell(move || {
            WAITING.fetch_sub(1, Ordering::Relaxed);
            taken_down.tell_again(metadata);
        });
        if !is_queued {
            WAITING.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn new_span(&self, _attributes: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }
    fn record(&self, _span: &span::Id, _values: &span::Record<'_>) {}
    fn record_follows_from(&self, _span: &span::Id, _follows: &span::Id) {}
    fn enter(&self, _span: &span::Id) {}
    fn exit(&self, _span: &span::Id) {}
}

/// The fields of an event, with their values as they can be kept.
#[derive(Default)]
struct EventFields(Vec<(Field, Box<dyn Value + Send>)>);

/// An event has at most so many fields.
const FIELDS: usize = 32;

impl EventFields {
    fn tell_again(&self, metadata: &'static Metadata<'static>) {
        let Some((first, _)) = self.0.first() else { return };
        let mut values: [(&Field, Option<&dyn Value>); FIELDS] = [(first, None); FIELDS];
        for (slot, (field, value)) in values.iter_mut().zip(&self.0) {
            *slot = (field, Some(&**value as &dyn Value));
        }
        dispatcher::get_default(|subscriber| {
            if subscriber.enabled(metadata) {
                subscriber.event(&Event::new(metadata, &metadata.fields().value_set(&values)));
            }
        });
    }

    fn keep(&mut self, field: &Field, value: impl Value + Send + 'static) {
        self.0.push((field.clone(), Box::new(value)));
    }
}

impl Visit for EventFields {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.keep(field, display(format!("{value:?}")));
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.keep(field, value.to_owned());
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.keep(field, value);
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.keep(field, value);
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.keep(field, value);
    }
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.keep(field, value);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use super::*;
    use crate::base::mutex::Mutex;

    /// Blocks at each event until it is let go, and hands over what it heard.
    struct BlockingSubscriber {
        let_go: Mutex<std::sync::mpsc::Receiver<()>>,
        heard: Mutex<std::sync::mpsc::Sender<(String, String)>>,
    }

    struct Message(String);

    impl Visit for Message {
        fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
            if field.name() == "message" {
                self.0 = format!("{value:?}");
            }
        }
    }

    impl Subscriber for BlockingSubscriber {
        fn enabled(&self, metadata: &Metadata<'_>) -> bool {
            metadata.target() == "a_library"
        }
        fn event(&self, event: &Event<'_>) {
            let _ = self.let_go.lock().recv_timeout(Duration::from_secs(10));
            let mut message = Message(String::new());
            event.record(&mut message);
            let thread = std::thread::current().name().unwrap_or_default().to_owned();
            let _ = self.heard.lock().send((message.0, thread));
        }
        fn new_span(&self, _attributes: &span::Attributes<'_>) -> span::Id {
            span::Id::from_u64(1)
        }
        fn record(&self, _span: &span::Id, _values: &span::Record<'_>) {}
        fn record_follows_from(&self, _span: &span::Id, _follows: &span::Id) {}
        fn enter(&self, _span: &span::Id) {}
        fn exit(&self, _span: &span::Id) {}
    }

    #[test]
    fn what_a_library_tells_on_the_heart_holds_nothing_up_and_is_not_lost() {
        let ((let_go, blocked), (heard, all)) = (channel(), channel());
        let subscriber = BlockingSubscriber { let_go: Mutex::new(blocked), heard: Mutex::new(heard) };
        dispatcher::set_global_default(Dispatch::new(subscriber)).unwrap();
        quietly(|| tracing::info!(target: "a_library", number = 7, name = "x", "the {} came", "pong"));
        {
            let _step = quiet_step();
            tracing::debug!(target: "a_library", "on a caller's thread");
        }
        assert!(all.try_recv().is_err(), "the subscriber is blocked, and this thread went on");
        for _ in 0..2 {
            let_go.send(()).unwrap();
        }
        let next = || all.recv_timeout(Duration::from_secs(10)).unwrap();
        assert_eq!(next(), ("the pong came".to_owned(), "tooz-trace".to_owned()));
        assert_eq!(next(), ("on a caller's thread".to_owned(), "tooz-trace".to_owned()));
    }
}
