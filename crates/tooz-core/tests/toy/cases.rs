//! Many cases of one test: each on a thread and a runtime of its own, all failures told together.

use std::any::Any;
use std::collections::VecDeque;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

type Run = Box<dyn FnOnce() -> Pin<Box<dyn Future<Output = ()>>> + Send>;

/// How many run beside each other: most of their time they wait.
const BESIDE: usize = 24;

#[derive(Default)]
pub(crate) struct Cases(VecDeque<(String, Run)>);

impl Cases {
    pub(crate) fn add<F: Future<Output = ()> + 'static>(
        &mut self,
        name: String,
        case: impl FnOnce() -> F + Send + 'static,
    ) {
        self.0.push_back((name, Box::new(|| Box::pin(case()))));
    }

    /// Runs all of them, and fails with the words of each that failed or did not end.
    #[track_caller]
    pub(crate) fn judge(self, limit: Duration) {
        let count = self.0.len();
        let mut waiting = self.0;
        let mut failures = Vec::new();
        while !waiting.is_empty() {
            let batch: Vec<_> =
                waiting.drain(..BESIDE.min(waiting.len())).map(|(name, case)| (name, start(case))).collect();
            let end = std::time::Instant::now() + limit;
            for (name, ended) in batch {
                match ended.recv_timeout(end.saturating_duration_since(std::time::Instant::now())) {
                    Ok(Ok(())) => {}
                    Ok(Err(words)) => failures.push(format!("{name}: {words}")),
                    Err(_) => failures.push(format!("{name}: it hangs its thread")),
                }
            }
        }
        assert!(failures.is_empty(), "{} of {count} cases fail:\n{}", failures.len(), failures.join("\n"));
    }
}

fn start(case: Run) -> mpsc::Receiver<Result<(), String>> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime can be made");
        let result = catch_unwind(AssertUnwindSafe(|| runtime.block_on(case()))).map_err(|panic| words(&*panic));
        runtime.shutdown_background();
        let _ = sender.send(result);
    });
    receiver
}

/// What a panic has said.
pub(crate) fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic without words".to_owned())
}
