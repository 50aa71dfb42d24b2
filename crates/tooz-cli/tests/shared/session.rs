//! A shell with job control on a terminal of its own, as wide and as high as the smallest that is in use.

use std::fs::File;
use std::io::{Read, Write};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::pty::{Winsize, openpty};

use super::{Bench, PATIENCE, Running, with_default_signals};

const SIZE: Winsize = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };

/// An interactive shell with job control on a terminal of its own.
pub(crate) struct Session {
    pub(crate) bench: Bench,
    keyboard: File,
    screen: Arc<Mutex<String>>,
    _shell: Running,
}

impl Session {
    pub(crate) fn open() -> Self {
        let bench = Bench::new();
        let terminal = openpty(Some(&SIZE), None).unwrap();
        let end = || Stdio::from(terminal.slave.try_clone().unwrap());
        let mut shell = with_default_signals("setsid");
        shell.args(["--ctty", "bash", "--norc", "--noprofile", "--noediting", "-i"]);
        shell.env("TOOZ_URL", bench.url()).env("PS1", "$ ").env("TOOZ", env!("CARGO_BIN_EXE_tooz"));
        shell.env("TERM", "xterm-256color");
        shell.current_dir(bench.path("")).stdin(end()).stdout(end()).stderr(end());
        let shell = Running(shell.spawn().unwrap());
        drop((shell.0.stdin.as_ref(), terminal.slave));
        let mut reader = File::from(terminal.master.try_clone().unwrap());
        let screen = Arc::new(Mutex::new(String::new()));
        let shown = Arc::clone(&screen);
        std::thread::spawn(move || {
            let mut bytes = [0; 1024];
            while let Ok(length @ 1..) = reader.read(&mut bytes) {
                shown.lock().unwrap().push_str(&String::from_utf8_lossy(&bytes[..length]));
            }
        });
        let session = Session { bench, keyboard: terminal.master.into(), screen, _shell: shell };
        session.shows("$ ");
        session
    }

    pub(crate) fn type_in(&mut self, text: &str) {
        self.keyboard.write_all(text.as_bytes()).unwrap();
    }

    pub(crate) fn shows(&self, text: &str) {
        let begin = Instant::now();
        while !self.screen.lock().unwrap().contains(text) {
            let screen = self.screen.lock().unwrap();
            assert!(begin.elapsed() < PATIENCE, "{text:?} is not on the screen: {screen}");
            drop(screen);
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Runs a script under a lock in the foreground; answers its process id.
    ///
    /// A script that is to be stopped starts nothing: a shell that forks by `vfork` can't be stopped while its child is,
    /// before the child's exec, and a test that waits for the shell to stop waits for ever, with or without `tooz`.
    pub(crate) fn lock(&mut self, script: &str) -> i32 {
        nix::unistd::mkfifo(&self.bench.path("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        std::fs::write(self.bench.path("script"), format!("echo $$ > pid.new; mv pid.new pid; {script}")).unwrap();
        self.type_in("\"$TOOZ\" lock x -- sh script; echo code-$?-\n");
        self.bench.number("pid")
    }

    /// All that was written to the terminal so far.
    pub(crate) fn written(&self) -> String {
        self.screen.lock().unwrap().clone()
    }

    /// Forgets it, so that what is written from now on can be waited for.
    pub(crate) fn forget(&self) {
        self.screen.lock().unwrap().clear();
    }
}
