//! Known bugs, put on purpose into a session of any driver, to show that the suite catches them.
//!
//! [`wrap`] takes a session and a [`Bug`]; everything else is delegated, method by method. A test connects a driver of its
//! own, which wraps what another driver connects, and asserts that [`run_case`](crate::run_case) of
//! [`Bug::caught_by`] fails, and succeeds without the bug.
//!
//! ```no_run
//! # use tooz_core::driver::{ConnectArgs, ConnectFuture, Session};
//! # use tooz_conformance::mutant::{self, Bug};
//! # async fn connect_memory(args: ConnectArgs) -> tooz_core::Result<std::sync::Arc<dyn Session>> { unimplemented!() }
//! fn connect(args: ConnectArgs) -> ConnectFuture {
//!     Box::pin(async move { Ok(mutant::wrap(connect_memory(args).await?, Bug::SwallowsARelease)) })
//! }
//! ```

// Long because the list of bugs and the delegation of every method belong side by side.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tooz_core::driver::{
    Clock, Granted, Groups, JoinRequest, LockKey, LockRequest, Locks, Mutex, Owned, PushStream, Pushed, Replace,
    RequestId, Roster, Session, Space, Wanted, push_channel,
};
use tooz_core::{
    Checkup, ErrorKind, FencingToken, GroupId, Holder, LockMode, Probe, Result, RosterEntry, Terms, Waiter,
};

macro_rules! bugs {
    ($($(#[$doc:meta])* $name:ident => $case:literal;)*) => {
        /// A bug that lock libraries have had.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Bug {
            $($(#[$doc])* $name,)*
        }

        impl Bug {
            /// Every bug there is.
            pub const ALL: &[Bug] = &[$(Bug::$name),*];

            /// The case that shows it, at the latest.
            pub const fn caught_by(self) -> &'static str {
                match self { $(Bug::$name => $case,)* }
            }
        }
    };
}

bugs! {
    /// A lock that is held is granted to a second.
    GrantsWhileHeld => "locks::two_coordinators_exclude_each_other";
    /// A waiter is granted after a while, free or not.
    GrantsEarly => "locks::two_coordinators_exclude_each_other";
    /// A shared grant is given where an exclusive one was asked for.
    TakesExclusiveForShared => "locks::two_coordinators_exclude_each_other";
    /// An exclusive grant is given where a shared one was asked for.
    TakesSharedForExclusive => "modes::readers_share";
    /// Every grant has the same token.
    TokensStandStill => "locks::tokens_strictly_grow";
    /// Tokens begin again with each session.
    TokensBeginAgain => "locks::tokens_grow_over_close_and_reopen";
    /// A release is answered and not done.
    SwallowsARelease => "locks::a_waiter_gets_the_lock_after_release";
    /// A release frees the lock, also that of another holder.
    ReleasesUnconditionally => "modes::one_reader_that_leaves_leaves_the_others";
    /// A break frees the present holder without comparing its token.
    BreaksWithoutComparing => "locks::breaking_a_stale_holder_is_not_found";
    /// A break is answered and not done.
    SwallowsABreak => "locks::a_broken_lock_can_be_had";
    /// A wait that was withdrawn is granted later, without a taker.
    LeaksACancelledWait => "locks::a_cancelled_waiter_is_skipped";
    /// A try that failed leaves its request in the queue.
    LeaksAFailedTry => "locks::a_hundred_failed_tries_leak_nothing";
    /// No holder is listed.
    ListsNoHolders => "locks::holders_tell_who_and_how";
    /// Locks are listed also when they are free again.
    ListsFreeLocks => "in_use::the_locks_in_use_are_listed";
    /// Locks of another namespace, or elections, are listed.
    ListsElections => "in_use::other_namespaces_and_elections_are_not_listed";
    /// The waiters are listed in the wrong order.
    TurnsTheQueueRound => "in_use::who_waits_is_told_in_order";
    /// A holder is told to wait.
    ListsHoldersAsWaiters => "in_use::who_waits_is_told";
    /// Names are folded to small letters.
    FoldsCase => "names::nasty_lock_names_work_and_stay_distinct";
    /// Names are cut at a slash.
    CutsNamesAtASlash => "names::nasty_lock_names_work_and_stay_distinct";
    /// Elections and users' locks are one.
    MixesElectionsWithLocks => "election::a_user_lock_of_the_groups_name_is_another_lock";
    /// A second member of the same id overwrites the first.
    OverwritesANamesake => "groups::a_living_namesake_is_refused";
    /// A leave is answered and not done.
    SwallowsALeave => "groups::who_left_is_gone";
    /// An update is answered and not done.
    SwallowsAnUpdate => "groups::an_update_is_seen_by_all_members";
    /// Members that have gone are listed for ever.
    ListsTheDead => "groups::who_left_is_gone";
    /// A group with members is said to be deleted.
    DeletesAGroupWithMembers => "groups::a_group_with_members_is_not_deleted";
    /// Creating a group that is there is no error.
    CreatesTwice => "groups::a_second_create_is_refused";
    /// A watch says that it is ready, and nothing else.
    ForgetsPushes => "watches::changes_are_pushed";
    /// A watch of a lock says that it is ready, and nothing else.
    ForgetsPushesOfLeaders => "election::a_change_of_leaders_is_pushed";
    /// Closing ends nothing.
    ClosesNothing => "lifecycle::closing_frees_what_was_held";
    /// A heartbeat that failed counts: a dead session is kept alive in its holder's eyes.
    RenewsTheDead => "liveness::a_member_cut_off_for_long_loses_what_it_holds";
}

/// `session` with that bug.
pub fn wrap(session: Arc<dyn Session>, bug: Bug) -> Arc<dyn Session> {
    Arc::new(Mutant::new(session, Some(bug)))
}

/// `session` with no bug: what shows that the wrapper alone changes nothing.
pub fn faithful(session: Arc<dyn Session>) -> Arc<dyn Session> {
    Arc::new(Mutant::new(session, None))
}

impl fmt::Display for Bug {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, formatter)
    }
}

struct Mutant {
    session: Arc<dyn Session>,
    bug: Option<Bug>,
    /// Feeders of watches that never say anything again.
    ghosts: Mutex<Vec<tooz_core::driver::Pusher>>,
    /// All members that were ever listed.
    members: Mutex<Vec<(GroupId, RosterEntry)>>,
    tokens: Mutex<u64>,
    /// All locks that were ever listed.
    locks: Mutex<BTreeSet<LockKey>>,
}

impl Mutant {
    fn new(session: Arc<dyn Session>, bug: Option<Bug>) -> Self {
        Mutant {
            session,
            bug,
            ghosts: Mutex::default(),
            members: Mutex::default(),
            tokens: Mutex::default(),
            locks: Mutex::default(),
        }
    }

    fn has(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    /// The key as this session understands it.
    fn key(&self, key: &LockKey) -> LockKey {
        let mut key = key.clone();
        match self.bug {
            Some(Bug::FoldsCase) => key.name = key.name.to_lowercase().into(),
            Some(Bug::CutsNamesAtASlash) => {
                let last = key.name.rsplit('/').next().unwrap_or_default();
                if !last.is_empty() {
                    key.name = last.into();
                }
            }
            Some(Bug::MixesElectionsWithLocks) => key.space = Space::Lock,
            _ => {}
        }
        key
    }

    fn request(&self, request: &LockRequest) -> LockRequest {
        let mut request = request.clone();
        request.key = self.key(&request.key);
        match self.bug {
            Some(Bug::TakesExclusiveForShared) => request.mode = LockMode::Shared,
            Some(Bug::TakesSharedForExclusive) => request.mode = LockMode::Exclusive,
            _ => {}
        }
        request
    }

    fn granted(&self, granted: Granted) -> Granted {
        match self.bug {
            Some(Bug::TokensStandStill) => Granted::new(FencingToken(7)),
            Some(Bug::TokensBeginAgain) => {
                let mut last = self.tokens.lock();
                *last += 1;
                Granted::new(FencingToken(*last))
            }
            _ => granted,
        }
    }

    /// A grant out of nothing, with a token that looks right.
    async fn forged(&self, request: &LockRequest) -> Result<Granted> {
        let holders = self.session.holders(&request.key).await?;
        let highest = holders.iter().map(|holder| holder.token.0).max().unwrap_or(0);
        Ok(Granted::new(FencingToken(highest + 1)))
    }

    /// Goes on trying for a request that is not wanted any more.
    fn leak(&self, request: LockRequest) {
        let session = Arc::clone(&self.session);
        // Ends with the heart that it runs on.
        tokio::spawn(async move {
            while let Ok(None) = session.try_lock(&request).await {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
    }

    fn silent(&self) -> PushStream {
        let (pusher, stream) = push_channel();
        pusher.push(Pushed::Ready);
        self.ghosts.lock().push(pusher);
        stream
    }
}

// A method with a default that is not forwarded would take the driver's ability away unseen.
#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl Session for Mutant {
    fn terms(&self) -> Terms {
        self.session.terms()
    }

    fn clock(&self) -> Clock {
        self.session.clock()
    }

    async fn open(&self) -> Result<()> {
        self.session.open().await
    }

    async fn beat(&self) -> Result<Vec<RequestId>> {
        match self.session.beat().await {
            Err(_) if self.has(Bug::RenewsTheDead) => Ok(Vec::new()),
            result => result,
        }
    }

    async fn owned(&self) -> Result<Owned> {
        self.session.owned().await
    }

    #[cfg(unix)]
    fn descriptors(&self) -> Vec<std::os::fd::OwnedFd> {
        self.session.descriptors()
    }

    async fn probe(&self, probe: Probe) -> Result<()> {
        self.session.probe(probe).await
    }

    async fn check_up(&self) -> Result<Checkup> {
        self.session.check_up().await
    }

    async fn close(&self) -> Result<()> {
        if self.has(Bug::ClosesNothing) {
            // The session must outlive its handle for the bug to show.
            std::mem::forget(Arc::clone(&self.session));
            return Ok(());
        }
        self.session.close().await
    }
}

#[async_trait]
impl Locks for Mutant {
    async fn try_lock(&self, request: &LockRequest) -> Result<Option<Granted>> {
        let request = self.request(request);
        let result = self.session.try_lock(&request).await?;
        if result.is_none() {
            if self.has(Bug::GrantsWhileHeld) {
                return self.forged(&request).await.map(Some);
            }
            if self.has(Bug::LeaksAFailedTry) {
                self.leak(request);
            }
        }
        Ok(result.map(|granted| self.granted(granted)))
    }

    async fn lock(&self, request: &LockRequest, wanted: &Wanted) -> Result<Option<Granted>> {
        let request = self.request(request);
        let waiting = self.session.lock(&request, wanted);
        let result = if self.has(Bug::GrantsEarly) {
            tokio::select! {
                result = waiting => result?,
                () = tokio::time::sleep(Duration::from_millis(30)) => return self.forged(&request).await.map(Some),
            }
        } else {
            waiting.await?
        };
        if result.is_none() && self.has(Bug::LeaksACancelledWait) {
            self.leak(request);
        }
        Ok(result.map(|granted| self.granted(granted)))
    }

    async fn release(&self, request: &LockRequest) -> Result<()> {
        let request = self.request(request);
        if self.has(Bug::SwallowsARelease) {
            return Ok(());
        }
        if self.has(Bug::ReleasesUnconditionally) {
            for holder in self.session.holders(&request.key).await? {
                let _ = self.session.break_lock(&request.key, holder.token).await;
            }
        }
        self.session.release(&request).await
    }

    fn holds(&self, request: &LockRequest) -> bool {
        self.session.holds(&self.request(request))
    }

    async fn holders(&self, key: &LockKey) -> Result<Vec<Holder>> {
        if self.has(Bug::ListsNoHolders) {
            return Ok(Vec::new());
        }
        self.session.holders(&self.key(key)).await
    }

    async fn break_lock(&self, key: &LockKey, token: FencingToken) -> Result<()> {
        let key = self.key(key);
        if self.has(Bug::SwallowsABreak) {
            return Ok(());
        }
        if self.has(Bug::BreaksWithoutComparing) {
            for holder in self.session.holders(&key).await? {
                self.session.break_lock(&key, holder.token).await?;
            }
            return Ok(());
        }
        self.session.break_lock(&key, token).await
    }

    async fn locks(&self) -> Result<Vec<LockKey>> {
        let mut keys = self.session.locks().await?;
        if self.has(Bug::ListsElections) {
            for key in &mut keys {
                key.space = Space::Lock;
            }
        }
        if self.has(Bug::ListsFreeLocks) {
            let mut seen = self.locks.lock();
            seen.extend(keys);
            keys = seen.iter().cloned().collect();
        }
        Ok(keys)
    }

    async fn waiters(&self, key: &LockKey) -> Result<Vec<Waiter>> {
        let mut waiters = self.session.waiters(&self.key(key)).await?;
        if self.has(Bug::TurnsTheQueueRound) {
            waiters.reverse();
        }
        if self.has(Bug::ListsHoldersAsWaiters) {
            let holders = self.session.holders(&self.key(key)).await?;
            waiters.extend(holders.into_iter().map(|holder| Waiter::new(holder.member, holder.mode)));
        }
        Ok(waiters)
    }

    async fn watch_lock(&self, key: &LockKey) -> Result<Option<PushStream>> {
        let stream = self.session.watch_lock(&self.key(key)).await?;
        Ok(if self.has(Bug::ForgetsPushesOfLeaders) { Some(self.silent()) } else { stream })
    }
}

#[async_trait]
impl Groups for Mutant {
    async fn create_group(&self, group: &GroupId) -> Result<()> {
        match self.session.create_group(group).await {
            Err(error) if error.kind() == ErrorKind::AlreadyExists && self.has(Bug::CreatesTwice) => Ok(()),
            result => result,
        }
    }

    async fn delete_group(&self, group: &GroupId) -> Result<()> {
        match self.session.delete_group(group).await {
            Err(error) if error.kind() == ErrorKind::NotEmpty && self.has(Bug::DeletesAGroupWithMembers) => Ok(()),
            result => result,
        }
    }

    async fn groups(&self) -> Result<Vec<GroupId>> {
        self.session.groups().await
    }

    async fn join(&self, request: &JoinRequest) -> Result<()> {
        let mut request = request.clone();
        if self.has(Bug::OverwritesANamesake) {
            request.replace = Replace::Anybody;
        }
        self.session.join(&request).await
    }

    async fn update(&self, request: &JoinRequest) -> Result<()> {
        if self.has(Bug::SwallowsAnUpdate) {
            return Ok(());
        }
        self.session.update(request).await
    }

    async fn leave(&self, request: &JoinRequest) -> Result<()> {
        if self.has(Bug::SwallowsALeave) {
            return Ok(());
        }
        self.session.leave(request).await
    }

    async fn members(&self, group: &GroupId) -> Result<Roster> {
        let mut roster = self.session.members(group).await?;
        if self.has(Bug::ListsTheDead) {
            let mut known = self.members.lock();
            let living: BTreeSet<_> = roster.members.iter().map(|entry| entry.member.clone()).collect();
            for entry in &roster.members {
                if !known.iter().any(|(of, other)| of == group && other.member == entry.member) {
                    known.push((group.clone(), entry.clone()));
                }
            }
            let dead = known.iter().filter(|(of, entry)| of == group && !living.contains(&entry.member));
            roster.members.extend(dead.map(|(_, entry)| entry.clone()));
        }
        Ok(roster)
    }

    async fn watch_group(&self, group: &GroupId) -> Result<Option<PushStream>> {
        let stream = self.session.watch_group(group).await?;
        Ok(if self.has(Bug::ForgetsPushes) { Some(self.silent()) } else { stream })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use tooz_core::driver::{ConnectArgs, ConnectFuture};
    use tooz_core::{Characteristic, Characteristics, ConnectOptions, Driver};

    use super::*;

    #[test]
    fn every_bug_is_caught_by_a_case_that_exists() {
        for bug in Bug::ALL {
            assert!(crate::case_names().contains(&bug.caught_by()), "{bug}: there is no case {}", bug.caught_by());
        }
    }

    const HAS: Characteristics = Characteristics::of(&[Characteristic::Groups, Characteristic::BreakableLocks]);
    const DRIVER: Driver = Driver::new("recorder", &["recorder"], connect).characteristics(HAS);
    static CARD: Driver = DRIVER;
    /// The methods that were called, and the requests that core made: only core can make one.
    static SEEN: LazyLock<Mutex<Calls>> = LazyLock::new(Mutex::default);

    #[derive(Default)]
    struct Calls {
        methods: BTreeSet<&'static str>,
        lock: Option<(LockRequest, Wanted)>,
        join: Option<JoinRequest>,
    }

    struct Recorder;

    fn connect(_args: ConnectArgs) -> ConnectFuture {
        Box::pin(async { Ok(faithful(Arc::new(Recorder))) })
    }

    fn note(method: &'static str) {
        SEEN.lock().methods.insert(method);
    }

    #[async_trait]
    impl Session for Recorder {
        fn terms(&self) -> Terms {
            note("terms");
            Terms::new(None, HAS)
        }

        fn clock(&self) -> Clock {
            note("clock");
            Clock::boot_time()
        }

        async fn open(&self) -> Result<()> {
            note("open");
            Ok(())
        }

        async fn beat(&self) -> Result<Vec<RequestId>> {
            note("beat");
            Ok(Vec::new())
        }

        async fn owned(&self) -> Result<Owned> {
            note("owned");
            Ok(Owned::default())
        }

        #[cfg(unix)]
        fn descriptors(&self) -> Vec<std::os::fd::OwnedFd> {
            note("descriptors");
            Vec::new()
        }

        async fn probe(&self, _probe: Probe) -> Result<()> {
            note("probe");
            Ok(())
        }

        async fn check_up(&self) -> Result<Checkup> {
            note("check_up");
            Ok(Checkup::default())
        }

        async fn close(&self) -> Result<()> {
            note("close");
            Ok(())
        }
    }

    #[async_trait]
    impl Locks for Recorder {
        async fn try_lock(&self, _request: &LockRequest) -> Result<Option<Granted>> {
            note("try_lock");
            Ok(None)
        }

        async fn lock(&self, request: &LockRequest, wanted: &Wanted) -> Result<Option<Granted>> {
            note("lock");
            SEEN.lock().lock = Some((request.clone(), wanted.clone()));
            Ok(Some(Granted::new(FencingToken(1))))
        }

        async fn release(&self, _request: &LockRequest) -> Result<()> {
            note("release");
            Ok(())
        }

        fn holds(&self, _request: &LockRequest) -> bool {
            note("holds");
            true
        }

        async fn holders(&self, _key: &LockKey) -> Result<Vec<Holder>> {
            note("holders");
            Ok(Vec::new())
        }

        async fn break_lock(&self, _key: &LockKey, _token: FencingToken) -> Result<()> {
            note("break_lock");
            Ok(())
        }

        async fn locks(&self) -> Result<Vec<LockKey>> {
            note("locks");
            Ok(Vec::new())
        }

        async fn waiters(&self, _key: &LockKey) -> Result<Vec<Waiter>> {
            note("waiters");
            Ok(Vec::new())
        }

        async fn watch_lock(&self, _key: &LockKey) -> Result<Option<PushStream>> {
            note("watch_lock");
            Ok(None)
        }
    }

    #[async_trait]
    impl Groups for Recorder {
        async fn create_group(&self, _group: &GroupId) -> Result<()> {
            note("create_group");
            Ok(())
        }

        async fn delete_group(&self, _group: &GroupId) -> Result<()> {
            note("delete_group");
            Ok(())
        }

        async fn groups(&self) -> Result<Vec<GroupId>> {
            note("groups");
            Ok(Vec::new())
        }

        async fn join(&self, request: &JoinRequest) -> Result<()> {
            note("join");
            SEEN.lock().join = Some(request.clone());
            Ok(())
        }

        async fn update(&self, _request: &JoinRequest) -> Result<()> {
            note("update");
            Ok(())
        }

        async fn leave(&self, _request: &JoinRequest) -> Result<()> {
            note("leave");
            Ok(())
        }

        async fn members(&self, _group: &GroupId) -> Result<Roster> {
            note("members");
            Ok(Roster::default())
        }

        async fn watch_group(&self, _group: &GroupId) -> Result<Option<PushStream>> {
            note("watch_group");
            Ok(None)
        }
    }

    #[tokio::test]
    async fn every_method_is_forwarded() -> Result<()> {
        // Core makes one request of each kind; the session that is asked afterwards is ours alone.
        let options = ConnectOptions::new("recorder:")?.member("a")?.driver(&CARD);
        let coordinator = options.connect().await?;
        coordinator.lock("x")?.acquire().await?.release().await?;
        coordinator.group("g")?.join(&1).await?.leave().await?;
        coordinator.close().await?;
        let (request, wanted, join) = {
            let mut seen = SEEN.lock();
            seen.methods.clear();
            let (request, wanted) = seen.lock.take().expect("acquire calls lock");
            (request, wanted, seen.join.take().expect("join calls join"))
        };
        let session = faithful(Arc::new(Recorder));
        session.terms();
        session.clock();
        session.open().await?;
        session.beat().await?;
        session.try_lock(&request).await?;
        session.lock(&request, &wanted).await?;
        session.release(&request).await?;
        assert!(session.holds(&request));
        session.holders(&request.key).await?;
        session.break_lock(&request.key, FencingToken(1)).await?;
        session.create_group(&join.group).await?;
        session.delete_group(&join.group).await?;
        session.groups().await?;
        session.join(&join).await?;
        session.update(&join).await?;
        session.leave(&join).await?;
        session.members(&join.group).await?;
        session.watch_group(&join.group).await?;
        session.watch_lock(&request.key).await?;
        session.locks().await?;
        session.waiters(&request.key).await?;
        session.owned().await?;
        #[cfg(unix)]
        session.descriptors();
        session.probe(Probe::Read).await?;
        session.check_up().await?;
        session.close().await?;
        let count = SEEN.lock().methods.len();
        assert_eq!(count, if cfg!(unix) { 26 } else { 25 }, "{:?}", SEEN.lock().methods);
        Ok(())
    }
}
