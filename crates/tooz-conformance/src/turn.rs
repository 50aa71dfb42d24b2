//! Which trials may run beside each other. Most wait far more than they compute; one that crowds takes the whole of a small machine, on which
//! all others would be late, and so it runs alone.
//!
//! Several test programs keep this among them when `TOOZ_TURNS` names a file: it is locked by all that run, or by the one that runs alone, and
//! a list of how long each took, and whether alone, grows beside it, with `.log` at the end of its name.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::time::Instant;

use libtest_mimic::Trial;
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

/// The variable that names the file.
const FILE: &str = "TOOZ_TURNS";

/// For the trials of one program, first come, first served. A trial that panicked has had its turn: this lock knows no poison.
static HERE: RwLock<()> = RwLock::const_new(());

/// Whom a trial bears beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beside {
    /// Any trial but those that run alone.
    Others,
    /// None.
    Nobody,
}

impl Beside {
    /// Of a trial of that name, where these are the ones that crowd.
    pub fn of(name: &str, crowds: &[&str]) -> Beside {
        if crowds.contains(&name) { Beside::Nobody } else { Beside::Others }
    }
}

/// The trials of a program, those that crowd behind all others: so these wait for the machine once.
///
/// # Panics
/// When one of the names is no trial's.
pub fn in_order(mut trials: Vec<Trial>, crowds: &[&str]) -> Vec<Trial> {
    for name in crowds {
        assert!(trials.iter().any(|trial| trial.name() == *name), "there is no trial {name}, which is said to crowd");
    }
    trials.sort_by_key(|trial| crowds.contains(&trial.name()));
    trials
}

/// A trial's turn. It ends with the drop.
#[must_use = "the turn ends at once"]
pub struct Turn {
    name: String,
    beside: Beside,
    begun: Instant,
    log: Option<PathBuf>,
    _here: Here,
    /// The lock goes with the file.
    _everywhere: Option<File>,
}

#[allow(dead_code)]
enum Here {
    Beside(RwLockReadGuard<'static, ()>),
    Alone(RwLockWriteGuard<'static, ()>),
}

/// Waits for the turn of the trial of that name, on this thread. Call it before the trial's runtime is made.
///
/// # Panics
/// On a thread of a runtime, and when the file that `TOOZ_TURNS` names can't be opened or locked.
pub fn take(name: &str, beside: Beside) -> Turn {
    let here = match beside {
        Beside::Others => Here::Beside(HERE.blocking_read()),
        Beside::Nobody => Here::Alone(HERE.blocking_write()),
    };
    let file = std::env::var_os(FILE);
    let everywhere = file.as_ref().map(|file| lock(file, beside));
    let log = file.map(|file| with_end(&file, ".log"));
    Turn { name: name.to_owned(), beside, begun: Instant::now(), log, _here: here, _everywhere: everywhere }
}

/// A trial that is to run alone keeps the gate shut while it waits, so that those behind it do not come before.
fn lock(file: &OsString, beside: Beside) -> File {
    let words = "TOOZ_TURNS names a file that can be written and locked";
    let open = |end: &str| {
        let path = with_end(file, end);
        OpenOptions::new().create(true).truncate(false).write(true).open(path).expect(words)
    };
    let (gate, turn) = (open(".gate"), open(""));
    match beside {
        Beside::Others => {
            gate.lock_shared().expect(words);
            turn.lock_shared().expect(words);
        }
        Beside::Nobody => {
            gate.lock().expect(words);
            turn.lock().expect(words);
        }
    }
    turn
}

fn with_end(file: &OsString, end: &str) -> PathBuf {
    let mut path = file.clone();
    path.push(end);
    path.into()
}

impl Drop for Turn {
    fn drop(&mut self) {
        let Some(log) = &self.log else { return };
        let how = if self.beside == Beside::Nobody { "alone" } else { "beside" };
        let line = format!("{}\t{how}\t{}\n", self.begun.elapsed().as_millis(), self.name);
        // The list says where the time goes; no trial fails for want of it.
        if let Ok(mut file) = OpenOptions::new().create(true).append(true).open(log) {
            let _ = file.write_all(line.as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    use super::*;

    #[test]
    fn who_runs_alone_has_nobody_beside_it() {
        static RUNNING: AtomicUsize = AtomicUsize::new(0);
        let run = |beside| {
            let _turn = take("one", beside);
            let others = RUNNING.fetch_add(1, Ordering::SeqCst);
            thread::sleep(std::time::Duration::from_millis(5));
            RUNNING.fetch_sub(1, Ordering::SeqCst);
            assert!(beside == Beside::Others || others == 0, "{others} run beside it");
        };
        thread::scope(|scope| {
            for index in 0..12 {
                scope.spawn(move || run(if index % 3 == 0 { Beside::Nobody } else { Beside::Others }));
            }
        });
    }

    #[test]
    fn those_that_crowd_come_last() {
        let trials = ["a", "b", "c"].map(|name| Trial::test(name, || Ok(()))).into();
        let names: Vec<_> = in_order(trials, &["a"]).iter().map(|trial| trial.name().to_owned()).collect();
        assert_eq!(names, ["b", "c", "a"]);
        assert_eq!((Beside::of("a", &["a"]), Beside::of("b", &["a"])), (Beside::Nobody, Beside::Others));
    }

    #[test]
    fn two_programs_keep_it_by_the_file() {
        let path = std::env::temp_dir().join(format!("tooz-turns-{}", std::process::id())).into_os_string();
        let first = lock(&path, Beside::Others);
        let second = lock(&path, Beside::Others);
        let alone = OpenOptions::new().write(true).open(&path).unwrap();
        assert!(alone.try_lock().is_err());
        drop((first, second));
        let first = lock(&path, Beside::Nobody);
        assert!(alone.try_lock_shared().is_err());
        drop(first);
        assert!(alone.try_lock_shared().is_ok());
        for end in ["", ".gate"] {
            std::fs::remove_file(with_end(&path, end)).unwrap();
        }
    }
}
