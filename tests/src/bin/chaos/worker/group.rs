//! Belonging to the group: joining, saying something new, leading, leaving, and joining again. The membership is looked at all the while.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::json;
use tooz::{Capabilities, ConnectOptions, ErrorKind, JoinOptions, Loss, LossReason, Membership};
use tooz_conformance::history::{ChangeKind, Mode, Temptation, TemptationKind, now};

use crate::record::{Contest, GROUP, Record};
use crate::worker::Desk;
use crate::worker::grants::hold;

/// How often the membership is looked at.
const LOOK: Duration = Duration::from_millis(10);

/// The capability that tells which word of a member is shown. The weight stays, so that owners change with members alone.
pub(crate) fn capabilities(word: u64) -> Capabilities {
    Capabilities::new(&json!({ "word": word })).expect("a number is JSON")
}

/// Belongs to the group until the end.
pub(crate) async fn belong(desk: Desk) {
    let mut random = desk.random(0);
    // No word is said twice, in this life of the member or in a later one.
    let mut words = Words { last: now() };
    while !desk.is_ending() {
        let word = words.next();
        match join(&desk, word).await {
            Some(membership) => stay(&desk, &membership, &mut words, word, &mut random).await,
            None => desk.rest(Duration::from_millis(50)).await,
        }
        let pause = desk.pause(&mut random) * 4;
        desk.rest(pause).await;
    }
}

struct Words {
    last: u64,
}

impl Words {
    fn next(&mut self) -> u64 {
        self.last = now().max(self.last + 1);
        self.last
    }
}

async fn join(desk: &Desk, word: u64) -> Option<Membership> {
    let group = desk.coordinator.group(GROUP).ok()?;
    let number = desk.number();
    desk.say(&Record::Changing { number, kind: ChangeKind::Says(word), joins: true, at: now() });
    // The one of the same name before it may have been killed just now.
    let options = JoinOptions::new().capabilities(capabilities(word)).create().wait();
    match group.join_with(options).await {
        Ok(membership) => {
            desk.say(&Record::Changed { number, at: now() });
            Some(membership)
        }
        Err(error) => {
            if error.kind() == ErrorKind::AlreadyExists {
                desk.say(&Record::NotChanged { number });
            }
            None
        }
    }
}

/// What is done as a member, while it is looked at.
async fn stay(desk: &Desk, membership: &Membership, words: &mut Words, first: u64, random: &mut fastrand::Rng) {
    let standing = Standing::new(membership, first);
    let looked = look(desk, membership, &standing);
    let acted = async {
        for _ in 0..random.u8(1..12) {
            if desk.is_ending() || membership.over().is_some() {
                break;
            }
            match random.u8(..60) {
                0..20 => lead(desk, membership, random).await,
                20..22 => tempt(desk, membership, random).await,
                _ => update(desk, membership, words.next(), &standing).await,
            }
            let pause = desk.pause(random) * 4;
            desk.rest(pause).await;
        }
    };
    tokio::select! {
        () = looked => {}
        () = acted => {}
    }
    leave(desk, membership, &standing).await;
}

async fn leave(desk: &Desk, membership: &Membership, standing: &Standing) {
    standing.look(desk, membership);
    let number = desk.number();
    desk.say(&Record::Changing { number, kind: ChangeKind::Left, joins: false, at: now() });
    let left = membership.leave().await;
    if standing.was_lost() {
        desk.say(&Record::LostMembership { stood: standing.stood.load(Ordering::SeqCst) });
    }
    if left.is_ok() {
        desk.say(&Record::Changed { number, at: now() });
    }
}

async fn update(desk: &Desk, membership: &Membership, word: u64, standing: &Standing) {
    standing.look(desk, membership);
    let number = desk.number();
    desk.say(&Record::Changing { number, kind: ChangeKind::Says(word), joins: false, at: now() });
    standing.word.store(word, Ordering::SeqCst);
    if membership.update(&json!({ "word": word })).await.is_ok() {
        desk.say(&Record::Changed { number, at: now() });
    }
}

/// Tries what must be refused as long as it is a member, and says so if it was one all the time.
async fn tempt(desk: &Desk, membership: &Membership, random: &mut fastrand::Rng) {
    let Ok(group) = desk.coordinator.group(GROUP) else { return };
    let loss = membership.loss();
    let (kind, asked) = (random.choice(TEMPTATIONS).unwrap_or(TemptationKind::Create), now());
    let is_member = membership.is_member() && !loss.is_lost();
    let tried = match kind {
        TemptationKind::Create => group.create().await,
        TemptationKind::Delete => group.delete().await,
        TemptationKind::Namesake => join_as_namesake(desk).await,
    };
    let at = now();
    if is_member && membership.is_member() && !loss.is_lost() {
        let (worker, group) = (format!("{}/group", desk.role.member), GROUP.to_owned());
        desk.say(&Record::Tempted(Temptation { worker, group, kind, asked, at, done: tried.is_ok() }));
    }
}

const TEMPTATIONS: [TemptationKind; 3] = [TemptationKind::Create, TemptationKind::Delete, TemptationKind::Namesake];

/// By a coordinator of its own, as another process under the same name would.
async fn join_as_namesake(desk: &Desk) -> tooz::Result<()> {
    let role = &desk.role;
    let options = ConnectOptions::new(&role.url)?.member(role.member.as_str())?;
    let options = options.session_timeout(role.session_timeout).operation_timeout(role.operation_timeout);
    let namesake = options.connect().await?;
    let joined = namesake.group(GROUP)?.join_with(JoinOptions::new()).await.map(drop);
    let _ = namesake.close().await;
    joined
}

/// Stands for election for a while, and leads for a while.
async fn lead(desk: &Desk, membership: &Membership, random: &mut fastrand::Rng) {
    let number = desk.number();
    let worker = format!("{}/group", desk.role.member);
    let (of, lock, mode) = (Contest::Leadership, GROUP.to_owned(), Mode::Exclusive);
    desk.say(&Record::Asked { number, worker, of, lock, mode, at: now() });
    let patience = Duration::from_millis(random.u64(20..800));
    let elected = tokio::select! {
        elected = tokio::time::timeout(patience, membership.campaign()) => elected.ok(),
        // Dropping it withdraws.
        () = desk.end() => None,
    };
    match elected {
        Some(Ok(leadership)) => hold(desk, number, leadership, Duration::from_millis(random.u64(..40))).await,
        Some(Err(error)) => desk.say(&Record::Failed { number, at: now(), error: error.to_string() }),
        None => desk.say(&Record::NotHad { number, at: now(), waited: true }),
    }
}

/// A membership as it is looked at: what is said last, when it stood last, and the loss of its present standing.
struct Standing {
    word: AtomicU64,
    stood: AtomicU64,
    told: AtomicU64,
    loss: Mutex<Option<Loss>>,
}

impl Standing {
    fn new(membership: &Membership, word: u64) -> Self {
        let at = now();
        let loss = Mutex::new(Some(membership.loss()));
        Standing { word: AtomicU64::new(word), stood: AtomicU64::new(at), told: AtomicU64::new(at), loss }
    }

    /// Looks, and tells what is new. A loss is latched, so that one that is mended between two looks is seen all the same.
    fn look(&self, desk: &Desk, membership: &Membership) {
        // First the time, then the look.
        let at = now();
        let mut loss = self.loss.lock().expect("no thread panics with it");
        if loss.as_ref().is_some_and(Loss::is_lost) {
            *loss = None;
            desk.say(&Record::LostMembership { stood: self.stood.load(Ordering::SeqCst) });
        }
        if loss.is_none() && membership.is_member() {
            *loss = Some(membership.loss()).filter(|loss| !loss.is_lost());
            if loss.is_some() {
                desk.say(&Record::Rejoined { word: self.word.load(Ordering::SeqCst), at: now() });
            }
        }
        if loss.is_some() {
            self.stood.store(at, Ordering::SeqCst);
            if at > self.told.load(Ordering::SeqCst) + 100_000_000 {
                self.told.store(at, Ordering::SeqCst);
                desk.say(&Record::Stands { at });
            }
        }
    }

    /// Whether it was lost while it was being left.
    fn was_lost(&self) -> bool {
        let loss = self.loss.lock().expect("no thread panics with it");
        let reason = loss.as_ref().and_then(Loss::reason);
        !matches!(reason, None | Some(LossReason::Released | LossReason::Closed))
    }
}

/// Looks all the time; ends when the membership is over for ever.
async fn look(desk: &Desk, membership: &Membership, standing: &Standing) {
    while membership.over().is_none() {
        standing.look(desk, membership);
        tokio::time::sleep(LOOK).await;
    }
    standing.look(desk, membership);
}
