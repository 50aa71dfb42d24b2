//! The soak program, run short: eight processes take turns with one lock, and one process comes and goes a great many times.

use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::sleep;
use tooz_testbed::Server;

use crate::stage::{PATIENCE, Stage, cases, within};

cases! { "turns", Server, alone: true;
    eight_processes_get_their_fair_turns,
    eight_processes_get_their_turns_while_the_server_is_killed_and_started_again,
    nothing_piles_up_over_thousands_of_operations,
}

fn soak(stage: &Stage, arguments: &str) -> Command {
    let mut soak = Command::new(env!("CARGO_BIN_EXE_soak"));
    soak.args(["--url", &stage.url()]).args(arguments.split_whitespace());
    soak.stdout(Stdio::piped()).stderr(Stdio::inherit()).kill_on_drop(true);
    soak
}

async fn must_be_well(mut soak: Command, time: Duration) {
    let child = soak.spawn().expect("the soak program starts");
    let output = within(time + PATIENCE * 3, "the soak program", child.wait_with_output()).await.unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}:\n{text}", output.status);
    if std::env::var_os("TOOZ_FAULTS_NOTES").is_some() {
        eprint!("{text}");
    }
}

async fn eight_processes_get_their_fair_turns(stage: &Stage) {
    must_be_well(soak(stage, "--processes 8 --seconds 10"), Duration::from_secs(10)).await;
}

async fn eight_processes_get_their_turns_while_the_server_is_killed_and_started_again(stage: &Stage) {
    let time = Duration::from_secs(15);
    let running = must_be_well(soak(stage, "--processes 8 --seconds 15 --with-faults"), time);
    let breaking = async {
        for _ in 0..2 {
            sleep(Duration::from_secs(5)).await;
            stage.break_it(Server::restart);
        }
    };
    tokio::join!(running, breaking);
}

async fn nothing_piles_up_over_thousands_of_operations(stage: &Stage) {
    must_be_well(soak(stage, "--churn 6000 --tasks 8"), PATIENCE * 3).await;
    stage.nothing_is_left().await;
}
