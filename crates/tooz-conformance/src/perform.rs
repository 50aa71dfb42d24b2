//! How one case is run: on a stage of its own, within a limit, with what it left behind closed.

use std::any::Any;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::Poll;

use tokio::time::timeout;

use crate::cases::{Case, Requirement};
use crate::rig::Rig;
use crate::stage::{CaseResult, Stage, Venue};
use crate::turn::{self, Beside};

/// How a case ended.
pub(crate) enum CaseEnd {
    Passed,
    NotClaimed(String),
    Failed(String),
}

/// Runs a case in its turn.
pub(crate) fn in_turn(rig: &Rig, case: Case) -> CaseEnd {
    let _turn = turn::take(case.name, if case.needs_quiet() { Beside::Nobody } else { Beside::Others });
    perform(rig, case)
}

/// Runs a case on a runtime of its own, within a limit.
pub(crate) fn perform(rig: &Rig, case: Case) -> CaseEnd {
    let result = catch_unwind(AssertUnwindSafe(|| {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime of two threads can be made");
        let outcome = runtime.block_on(perform_here(rig, case));
        // A task that hangs in a failed case must not hang the suite.
        runtime.shutdown_background();
        outcome
    }));
    result.unwrap_or_else(|panic| CaseEnd::Failed(words(panic.as_ref())))
}

async fn perform_here(rig: &Rig, case: Case) -> CaseEnd {
    // This very session may have less than the card has at its best.
    if case.needs.iter().any(|need| matches!(need, Requirement::Has(_))) {
        match promised(rig).await {
            Ok(()) => {}
            Err(why) => return CaseEnd::Failed(format!("no session could be opened: {why}")),
        }
        let has = rig.session.get().copied().unwrap_or_default();
        for need in case.needs {
            if let Requirement::Has(one) = need
                && !has.has(*one)
            {
                return CaseEnd::NotClaimed(format!("this session does not have {one}"));
            }
        }
    }
    let has = |wanted: fn(&Requirement) -> bool| case.needs.iter().any(wanted);
    let venue = Venue {
        has_own_server: has(|need| matches!(need, Requirement::Restart)),
        is_cuttable: has(|need| matches!(need, Requirement::Cut)),
    };
    let stage = Stage::new(rig, venue);
    // Each wait has its own limit; this one catches what loops.
    let limit = rig.patience * 6 + rig.session_timeout * 4;
    let verdict = match timeout(limit, without_panic((case.run)(stage.clone()))).await {
        Ok(Ok(Ok(()))) => Ok(()),
        Ok(Ok(Err(failure))) => Err(failure.0),
        Ok(Err(panic)) => Err(panic),
        Err(_) => Err(format!("the case did not end within {limit:?}")),
    };
    let closed = stage.close_all().await;
    match (verdict, closed) {
        (Err(why), _) => CaseEnd::Failed(why),
        (Ok(()), Err(failure)) => CaseEnd::Failed(failure.0),
        (Ok(()), Ok(())) => CaseEnd::Passed,
    }
}

/// Turns a panic of the future into an error, so that what the case left behind can still be closed.
async fn without_panic<T>(mut future: Pin<Box<dyn Future<Output = T>>>) -> Result<T, String> {
    poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
        Ok(poll) => poll.map(Ok),
        Err(panic) => Poll::Ready(Err(words(panic.as_ref()))),
    })
    .await
}

/// Opens one session to see what it promises; once per rig.
async fn promised(rig: &Rig) -> CaseResult {
    if rig.session.get().is_none() {
        let stage = Stage::new(rig, Venue::default());
        let coordinator = stage.connect("probe").await?;
        drop(stage.soon("the first lock of all", coordinator.lock("probe")?.try_acquire()).await??);
        let _ = rig.session.set(coordinator.characteristics());
        stage.close_all().await?;
    }
    Ok(())
}

fn words(panic: &(dyn Any + Send)) -> String {
    if let Some(text) = panic.downcast_ref::<&str>() {
        (*text).to_owned()
    } else if let Some(text) = panic.downcast_ref::<String>() {
        text.clone()
    } else {
        "it panicked".to_owned()
    }
}
