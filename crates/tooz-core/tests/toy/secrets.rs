//! A function that knows the password, and fails, panics or hangs.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use tooz_core::{Credentials, Error, ErrorKind};

use crate::driver::TOY;
use crate::stage::{OPERATION, SOON, Toy, comes_true, soon, trial, within};

const GIVES: u8 = 0;
const FAILS: u8 = 1;
const PANICS: u8 = 2;
const HANGS: u8 = 3;

async fn with(toy: &Toy, behaviour: &Arc<AtomicU8>) -> tooz_core::Result<tooz_core::Coordinator> {
    let asked = Arc::clone(behaviour);
    let options = toy.options("toy", "one").driver(&TOY).credentials(move || match asked.load(Ordering::SeqCst) {
        FAILS => Err(Error::new(ErrorKind::Unauthorized, "the vault is locked")),
        PANICS => panic!("the vault panics, as a test has ordered"),
        HANGS => loop {
            std::thread::sleep(Duration::from_mins(1));
        },
        _ => Ok(Credentials::new("somebody", "secret")),
    });
    options.connect().await
}

#[test]
fn a_password_that_is_not_to_be_had_is_the_error_of_who_connects() {
    trial(async || {
        for behaviour in [FAILS, PANICS, HANGS] {
            let toy = Toy::named(&format!("vault-{behaviour}"));
            let behaviour = Arc::new(AtomicU8::new(behaviour));
            let connecting = tokio::spawn(async move { with(&toy, &behaviour).await.map(drop) });
            let answer = soon("connect()", connecting).await.expect("the caller does not panic");
            let error = answer.expect_err("there is no password");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    });
}

#[test]
fn a_password_that_is_not_to_be_had_for_a_while_ends_nothing_that_stood() {
    trial(async || {
        for fault in [FAILS, PANICS, HANGS] {
            let toy = Toy::named(&format!("vault-again-{fault}"));
            let behaviour = Arc::new(AtomicU8::new(GIVES));
            let coordinator = soon("connect()", with(&toy, &behaviour)).await.unwrap();
            let membership = coordinator.group("g").unwrap().join_or_create(&1).await.unwrap();
            behaviour.store(fault, Ordering::SeqCst);
            toy.expire("one");
            tokio::time::sleep(Duration::from_millis(500)).await;
            behaviour.store(GIVES, Ordering::SeqCst);
            comes_true(SOON + OPERATION, "it is a member again", async || {
                if membership.is_member() { Ok(()) } else { Err(format!("{:?}", membership.loss().reason())) }
            })
            .await;
            behaviour.store(fault, Ordering::SeqCst);
            toy.expire("one");
            tokio::time::sleep(Duration::from_millis(100)).await;
            let _how_it_went = within(OPERATION + SOON, "close()", coordinator.close()).await;
        }
    });
}
