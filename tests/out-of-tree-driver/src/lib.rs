//! A driver in well under two hundred lines, with `tooz-core` as its one dependency: locks and groups on a blackboard of this process.
//!
//! `chalk://ROOM` is one blackboard for each room. It declares groups and nothing more: no shared locks, no breaking, no fairness, no watches. Core makes up for
//! the rest by asking again; what can't be made up answers `Unsupported`. `tests/conformance.rs` shows with one line that it keeps what it promises.

use std::collections::{BTreeMap, BTreeSet, HashMap, btree_map::Entry};
use std::sync::{Arc, LazyLock};

use tooz_core::driver::{
    ConnectArgs, ConnectFuture, Granted, Groups, JoinConflict, JoinRequest, LockKey, LockRequest, Locks, Mutex,
    Reporter, RequestId, Roster, Session, async_trait,
};
use tooz_core::{
    Characteristic, Characteristics, Driver, Error, FencingToken, GroupId, Holder, LockMode, MemberId, Result,
    RosterEntry, Terms,
};

const CHARACTERISTICS: Characteristics = Characteristics::of(&[
    Characteristic::Groups,
    Characteristic::DistributedAcrossThreads,
    // There is no clock here: what a session holds ends when it is closed, or with the process.
    Characteristic::NonTimeoutBased,
]);

/// The card of this driver.
pub const DRIVER: Driver = Driver::new("chalk", &["chalk"], connect)
    .about("a blackboard for each room of this process")
    .url("chalk://ROOM")
    .characteristics(CHARACTERISTICS);

tooz_core::register!(DRIVER);

/// What is written on one blackboard.
#[derive(Default)]
struct Board {
    held: BTreeMap<LockKey, (RequestId, Holder)>,
    // Kept for ever, so that tokens never repeat.
    last_token: u64,
    // Beside each member the way to tell it that it was replaced.
    groups: BTreeMap<GroupId, BTreeMap<MemberId, (RosterEntry, Reporter)>>,
}

static ROOMS: LazyLock<Mutex<HashMap<String, Arc<Mutex<Board>>>>> = LazyLock::new(Mutex::default);

struct Chalk {
    board: Arc<Mutex<Board>>,
    member: MemberId,
    reporter: Reporter,
    mine: Mutex<BTreeSet<RequestId>>,
}

fn connect(args: ConnectArgs) -> ConnectFuture {
    Box::pin(async move {
        let room = format!("{} {:?}", args.url, args.namespace);
        let board = Arc::clone(ROOMS.lock().entry(room).or_default());
        Ok(Arc::new(Chalk { board, member: args.member, reporter: args.reporter, mine: Mutex::default() })
            as Arc<dyn Session>)
    })
}

#[async_trait]
impl Session for Chalk {
    fn terms(&self) -> Terms {
        Terms::new(None, CHARACTERISTICS)
    }

    async fn close(&self) -> Result<()> {
        let mine = std::mem::take(&mut *self.mine.lock());
        let mut board = self.board.lock();
        board.held.retain(|_, (id, _)| !mine.contains(id));
        for members in board.groups.values_mut() {
            members.retain(|_, (entry, _)| !mine.contains(&entry.id));
        }
        Ok(())
    }
}

#[async_trait]
impl Locks for Chalk {
    async fn try_lock(&self, request: &LockRequest) -> Result<Option<Granted>> {
        if request.mode == LockMode::Shared {
            return Err(Error::unsupported("a shared lock"));
        }
        let mut board = self.board.lock();
        if let Some((id, holder)) = board.held.get(&request.key) {
            // A repetition finds its own grant.
            return Ok((*id == request.id).then(|| Granted::new(holder.token)));
        }
        board.last_token += 1;
        let token = FencingToken(board.last_token);
        let holder = Holder::new(self.member.clone(), request.mode, token);
        board.held.insert(request.key.clone(), (request.id, holder));
        self.mine.lock().insert(request.id);
        Ok(Some(Granted::new(token)))
    }

    async fn release(&self, request: &LockRequest) -> Result<()> {
        // Only the grant of that very request: the lock may be another's by now.
        self.board.lock().held.retain(|_, (id, _)| *id != request.id);
        self.mine.lock().remove(&request.id);
        Ok(())
    }

    async fn holders(&self, key: &LockKey) -> Result<Vec<Holder>> {
        Ok(self.board.lock().held.get(key).map(|(_, holder)| holder.clone()).into_iter().collect())
    }
}

#[async_trait]
impl Groups for Chalk {
    async fn create_group(&self, group: &GroupId) -> Result<()> {
        match self.board.lock().groups.entry(group.clone()) {
            Entry::Occupied(_) => return Err(Error::group_exists(group)),
            Entry::Vacant(vacant) => vacant.insert(BTreeMap::new()),
        };
        Ok(())
    }

    async fn delete_group(&self, group: &GroupId) -> Result<()> {
        let mut board = self.board.lock();
        match board.groups.get(group).map(BTreeMap::len) {
            None => return Err(Error::no_group(group)),
            Some(0) => board.groups.remove(group),
            Some(count) => return Err(Error::group_not_empty(group, count)),
        };
        Ok(())
    }

    async fn groups(&self) -> Result<Vec<GroupId>> {
        Ok(self.board.lock().groups.keys().cloned().collect())
    }

    async fn join(&self, request: &JoinRequest) -> Result<()> {
        let mut board = self.board.lock();
        let members = board.groups.get_mut(&request.group).ok_or_else(|| Error::no_group(&request.group))?;
        if let Some((there, reporter)) = members.get(&request.member) {
            match request.meets(there.id) {
                JoinConflict::Itself => return Ok(()),
                JoinConflict::Replaces => reporter.membership_lost(&request.group, there.id),
                JoinConflict::Refused => return Err(Error::namesake(request)),
            }
        }
        let entry = RosterEntry::new(request.member.clone(), request.id, request.capabilities.clone());
        members.insert(request.member.clone(), (entry, self.reporter.clone()));
        self.mine.lock().insert(request.id);
        Ok(())
    }

    async fn update(&self, request: &JoinRequest) -> Result<()> {
        let mut board = self.board.lock();
        let members = board.groups.get_mut(&request.group).ok_or_else(|| Error::no_group(&request.group))?;
        let mine = members.get_mut(&request.member).filter(|(entry, _)| entry.id == request.id);
        mine.ok_or_else(|| Error::not_member(request))?.0.capabilities = request.capabilities.clone();
        Ok(())
    }

    async fn leave(&self, request: &JoinRequest) -> Result<()> {
        if let Some(members) = self.board.lock().groups.get_mut(&request.group) {
            members.retain(|_, (entry, _)| entry.id != request.id);
        }
        self.mine.lock().remove(&request.id);
        Ok(())
    }

    async fn members(&self, group: &GroupId) -> Result<Roster> {
        let board = self.board.lock();
        let members = board.groups.get(group).ok_or_else(|| Error::no_group(group))?;
        Ok(Roster::new(members.values().map(|(entry, _)| entry.clone()).collect(), 0))
    }
}
