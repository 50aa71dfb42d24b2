//! Waiting in the kernel's queue, on a thread of our own: such a wait ends with the grant and not before.
//!
//! A wait that is not wanted any more is therefore *adopted*: its thread stays in the queue, and the next request of the same
//! lock and mode takes its place over. If there is none, the grant is given back at once. At most one thread per lock and
//! mode stands in the line, and at most one waits for the data lock: a thread that comes through the gate while an older one
//! is still parked there leaves it the gate.
//!
//! | gate | parked | asker | what is there |
//! |---|---|---|---|
//! | away | no | no | nothing: the wait is idle, and forgotten |
//! | queued | no | yes | a thread in the line, for a request |
//! | queued | no | no | a thread in the line that may be adopted, and ends at the gate if it is not |
//! | ours | yes | yes | a thread at the data lock, with the gate, for a request |
//! | away | yes | no | a thread at the data lock that ends with the grant, and gives it back |
//! | queued | yes | yes | that one, and a thread in the line for a new request: it leaves the gate to the parked one |
//! | queued | yes | no | the same, given up by that request, too |

use std::sync::Arc;

use tokio::sync::oneshot;
use tooz_core::driver::{LockKey, Mutex, MutexGuard, RequestId};
use tooz_core::{Error, LockMode, MemberId, Result};

use crate::error;
use crate::line::Position;
use crate::lock_file::{LockFile, LockedFile, Requester};
use crate::namespace_folder::NamespaceFolder;

/// Enough for a thread that makes a few calls of the system, also in a debug build.
const STACK: usize = 128 * 1024;

/// The place where one session waits for one lock in one mode.
pub(crate) struct Wait {
    namespace: NamespaceFolder,
    member: MemberId,
    pid: u32,
    key: LockKey,
    mode: LockMode,
    state: Mutex<WaitState>,
}

struct WaitState {
    asker: Option<Asker>,
    gate: GateState,
    /// Whether a thread is parked at the data lock.
    parked: bool,
}

struct Asker {
    id: RequestId,
    answer: oneshot::Sender<Result<LockedFile>>,
}

/// How this place stands to the gate of the lock.
enum GateState {
    /// No thread of ours is there.
    Away,
    /// A thread stands in the line for it.
    Queued,
    /// It is ours, by this description. Only as long as a request wants the lock.
    Ours(Arc<LockFile>),
}

/// What a thread does next.
enum Next {
    /// Its work is done, by itself or by another thread.
    End,
    /// It waits for the holders to go.
    Park,
    /// It begins again, because the file was replaced.
    Again,
}

impl Wait {
    pub(crate) fn new(
        namespace: NamespaceFolder,
        member: MemberId,
        pid: u32,
        key: LockKey,
        mode: LockMode,
    ) -> Arc<Self> {
        let state = WaitState { asker: None, gate: GateState::Away, parked: false };
        Arc::new(Wait { namespace, member, pid, key, mode, state: Mutex::new(state) })
    }

    /// Wants the lock from now on. `file` is an open one without locks, for a thread that may have to be started.
    pub(crate) fn want(
        self: &Arc<Self>,
        id: RequestId,
        file: Arc<LockFile>,
    ) -> Result<oneshot::Receiver<Result<LockedFile>>> {
        let (answer, receiver) = oneshot::channel();
        let mut state = self.state();
        if matches!(state.gate, GateState::Away) {
            let wait = Arc::clone(self);
            // Here and not on the thread, which may have to wait for a processor. A place goes with the description.
            let position = file.stand_in_line()?;
            std::thread::Builder::new()
                .name("tooz-file-wait".to_owned())
                .stack_size(STACK)
                .spawn(move || wait.queue(file, position))
                .map_err(error::no_thread)?;
            state.gate = GateState::Queued;
        }
        state.asker = Some(Asker { id, answer });
        Ok(receiver)
    }

    /// Does not want it any more. `false`: that request has got its answer already.
    pub(crate) fn unwant(&self, id: RequestId) -> bool {
        let mut state = self.state();
        if state.asker.as_ref().is_none_or(|asker| asker.id != id) {
            return false;
        }
        state.abandon();
        true
    }

    /// Nothing is wanted any more: the session ends.
    pub(crate) fn abandon(&self) {
        self.state().abandon();
    }

    /// Whether no thread is left here and no request waits.
    pub(crate) fn is_idle(&self) -> bool {
        let state = self.state();
        state.asker.is_none() && matches!(state.gate, GateState::Away) && !state.parked
    }

    /// The thread's work.
    fn queue(&self, mut file: Arc<LockFile>, mut position: Position) {
        loop {
            let next = match file.wait_in_line(position) {
                Ok(()) => self.passed_the_gate(&file),
                Err(error) => return self.fail(error),
            };
            if let Next::Park = next {
                // What an error leaves behind goes with the description.
                let waited = file.wait_for_data(self.mode);
                let held = file;
                match self.got_the_data(held, waited) {
                    Next::Again => {}
                    Next::End | Next::Park => return,
                }
            } else {
                return;
            }
            // The file was replaced, and with it the line.
            file = match LockFile::open(&self.namespace, &self.key) {
                Ok(file) => file,
                Err(error) => return self.fail(error),
            };
            position = Position::NotYet;
        }
    }

    fn passed_the_gate(&self, file: &Arc<LockFile>) -> Next {
        let mut state = self.state();
        if state.asker.is_none() {
            state.gate = GateState::Away;
            // The caller's description is closed as the thread ends, and the gate is free again.
            return Next::End;
        }
        state.gate = GateState::Ours(Arc::clone(file));
        if state.parked {
            return Next::End;
        }
        state.parked = true;
        Next::Park
    }

    fn got_the_data(&self, file: Arc<LockFile>, waited: Result<()>) -> Next {
        let mut state = self.state();
        state.parked = false;
        match std::mem::replace(&mut state.gate, GateState::Away) {
            // Given back by closing the description. (Without an asker the gate is never ours.)
            GateState::Away => Next::End,
            // A request that came since then has a place in the queue that is not this thread's to jump.
            GateState::Queued => {
                state.gate = GateState::Queued;
                Next::End
            }
            GateState::Ours(gate) => {
                if let Err(error) = waited {
                    return self.answer(state, Err(error));
                }
                let Some(id) = state.asker.as_ref().map(|asker| asker.id) else { return Next::End };
                let requester = Requester { member: &self.member, mode: self.mode, id, pid: self.pid };
                match file.finish(&requester) {
                    Ok(Some(taken)) => {
                        // The next one comes forward; if that fails, closing the description does it.
                        match gate.let_the_next_come() {
                            Ok(()) => self.answer(state, Ok(taken)),
                            Err(error) => self.answer(state, Err(error)),
                        }
                    }
                    Ok(None) => {
                        state.gate = GateState::Queued;
                        Next::Again
                    }
                    Err(error) => self.answer(state, Err(error)),
                }
            }
        }
    }

    fn fail(&self, error: Error) {
        let mut state = self.state();
        state.gate = GateState::Away;
        self.answer(state, Err(error));
    }

    /// A receiver that has gone drops the grant, and with it the description and the lock.
    #[allow(clippy::unused_self)]
    fn answer(&self, mut state: MutexGuard<'_, WaitState>, answer: Result<LockedFile>) -> Next {
        let asker = state.asker.take();
        drop(state);
        if let Some(asker) = asker {
            let _ = asker.answer.send(answer);
        }
        Next::End
    }

    fn state(&self) -> MutexGuard<'_, WaitState> {
        self.state.lock()
    }
}

impl WaitState {
    fn abandon(&mut self) {
        // The dropped sender tells a `lock` that still listens.
        self.asker = None;
        if let GateState::Ours(gate) = &self.gate {
            // The thread that is parked on this very description stays where it is; only others may come past it. Should
            // the call fail, they come when that thread ends.
            let _ = gate.let_the_next_come();
            self.gate = GateState::Away;
        }
    }
}
