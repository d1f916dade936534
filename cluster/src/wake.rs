//! Wake-ups: a node hears of the changes that its own sessions wait for, and of no others.
//!
//! An account on which a session waits is an *interest* of the node's epoch, in the store. A
//! transaction that changes the account writes to the inbox of each epoch that is interested, and
//! rings its bell. The node reads its inbox when the bell that it watches rings, and every
//! [`crate::limits::INBOX_PERIOD`] in any case. A datagram from the writer comes before either.
//!
//! Architecture invariants:
//! - A session that waits does so only after its node's interest was committed, and looks at the
//!   log once after that: it misses nothing.
//! - A node that has a new epoch writes its interests anew, and then wakes every session.
//! - One watch a node, whatever the number of its sessions.

mod inbox;
mod interests;

use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use env::{Env, Task};
use kv::Database;
use mail::{AccountId, ModSeq};

pub use interests::Interest;
use interests::Interests;

use crate::Membership;

/// Something that sessions may wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// An account has changed, in the commit of this version.
    Changed(AccountId, ModSeq),
    /// Anything may have changed.
    Anything,
}

/// What a node does with what it hears. Called on the tasks that listen: must be quick.
pub type Hear = Arc<dyn Fn(Heard) + Send + Sync>;

/// What is watched in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Watching {
    /// The node's bell.
    Bell,
    /// Nothing: the inbox is read every [`crate::limits::INBOX_PERIOD`], for a search for faults.
    Nothing,
}

/// A node's ears. Cloning is one reference count; they are closed with the last clone.
#[derive(Clone)]
pub struct Ears {
    interests: Arc<Interests>,
    _tasks: Arc<[Task<()>; 2]>,
}

impl Ears {
    /// Begins to listen.
    pub fn open(
        db: &Database,
        env: &Env,
        membership: &Membership,
        watching: Watching,
        hear: Hear,
    ) -> Self {
        let interests = Arc::new(Interests::new(db, env, membership, Arc::clone(&hear)));
        let keeping = env.spawn("interests", Arc::clone(&interests).keep());
        let reading = inbox::read(db.clone(), env.clone(), membership.clone(), watching, hear);
        let reading = env.spawn("inbox", reading);
        Self { interests, _tasks: Arc::new([keeping, reading]) }
    }

    /// Has changes of `account` heard for as long as the interest is kept, and somewhat longer.
    pub fn listen(&self, account: AccountId) -> Interest {
        Interests::listen(&self.interests, account)
    }

    /// Accounts that this node listens to.
    pub fn accounts(&self) -> usize {
        self.interests.accounts()
    }
}

/// Changes that one datagram tells of at most: 16 bytes each, within what every network carries.
pub const CHANGES_PER_DATAGRAM: usize = 64;

/// A datagram that tells of changes; those beyond [`CHANGES_PER_DATAGRAM`] are left to the inbox.
pub fn encode(changes: &[(AccountId, ModSeq)]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(16 * changes.len().min(CHANGES_PER_DATAGRAM));
    for (account, version) in changes.iter().take(CHANGES_PER_DATAGRAM) {
        bytes.put_u64(account.0);
        bytes.put_u64(version.0);
    }
    bytes.freeze()
}

/// What a datagram tells of. What follows the last whole change is passed over.
pub fn decode(mut bytes: Bytes) -> Vec<(AccountId, ModSeq)> {
    let mut changes = Vec::new();
    while bytes.remaining() >= 16 && changes.len() < CHANGES_PER_DATAGRAM {
        changes.push((AccountId(bytes.get_u64()), ModSeq(bytes.get_u64())));
    }
    changes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_tells_what_it_was_given() {
        let changes: Vec<_> = (0..100).map(|n| (AccountId(n), ModSeq(u64::MAX - n))).collect();
        let bytes = encode(&changes);
        assert_eq!(decode(bytes.clone()), changes[..CHANGES_PER_DATAGRAM]);
        assert_eq!(decode(bytes.slice(..40)), changes[..2]);
        assert_eq!(decode(Bytes::new()), []);
    }
}
