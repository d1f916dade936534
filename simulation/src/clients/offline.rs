//! A client that keeps an offline copy of a mailbox, as mail programs do: it resyncs from an earlier
//! state, keeps the copy right by what it is told, and compares it with what a FETCH says.
//!
//! Invariants:
//! - The copy changes by what the server tells alone, never by what the client wants.
//! - What the server tells twice in ways that do not agree (a sequence number that is another
//!   message's, flags that changed under one MODSEQ) is a difference, as is what a FETCH shows and
//!   nobody told.
//!
//! Deliberately absent: QRESYNC, which the product does not offer. It is to be a [`Way`] once it
//! does.

mod act;
mod apply;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::SocketAddr,
    sync::Arc,
};

use env::{Env, Monotonic};

use super::imap::{Answer, Imap, Untagged, quoted};
use crate::{Account, Host, PASSWORD, What, World};

pub use act::Transfer;

/// What a client knows of a mailbox.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Copy {
    /// Its name.
    pub mailbox: String,
    /// Its UIDVALIDITY; 0 where the client has never seen it.
    pub uid_validity: u32,
    /// The HIGHESTMODSEQ as of which the copy is right; 0 where it is unknown.
    pub highest_modseq: u64,
    /// The messages by UID.
    pub messages: BTreeMap<u32, Kept>,
}

/// What a client knows of a message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Kept {
    /// Its flags.
    pub flags: BTreeSet<String>,
    /// Its MODSEQ; 0 where the flags were told without it.
    pub modseq: u64,
    /// The word that no other message has, once the client has looked.
    pub token: Option<String>,
}

impl Copy {
    /// A mailbox that was never seen.
    pub fn of(mailbox: &str) -> Self {
        Self { mailbox: mailbox.to_owned(), ..Self::default() }
    }
}

/// How a client resyncs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Way {
    /// All flags anew (RFC 4549 §4.3).
    Plain,
    /// The changes since the copy's HIGHESTMODSEQ, and the UIDs (RFC 7162 §6).
    CondStore,
}

/// The revision that a client asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Revision {
    /// IMAP4rev1.
    One,
    /// IMAP4rev2.
    Two,
}

/// Why a session cannot go on as it wanted.
#[derive(Debug)]
pub enum Stopped {
    /// The connection is lost, or the node does not answer.
    Lost(io::Error),
    /// The node says no.
    Refused(String),
}

impl From<io::Error> for Stopped {
    fn from(error: io::Error) -> Self {
        Self::Lost(error)
    }
}

/// One logged-in connection, and the copy of the mailbox that it has selected.
pub struct Session {
    imap: Imap,
    world: World,
    host: Host,
    account: Account,
    way: Way,
    copy: Copy,
    /// UIDs by sequence number; 0 where the client has not asked yet.
    numbers: Vec<u32>,
    /// What did not agree.
    differences: Vec<String>,
}

impl Session {
    /// Connects and logs in.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn open(
        world: &World,
        host: &Host,
        account: &Account,
        door: SocketAddr,
        revision: Revision,
    ) -> Result<Self, Stopped> {
        let env: Env = host.env();
        let imap = Imap::connect(world, &env, door).await?;
        let mut session = Self {
            imap,
            world: world.clone(),
            host: host.clone(),
            account: account.clone(),
            way: Way::Plain,
            copy: Copy::default(),
            numbers: Vec::new(),
            differences: Vec::new(),
        };
        let login = format!("LOGIN {} {}", quoted(&account.address), quoted(PASSWORD));
        session.must(&login).await?;
        if revision == Revision::Two {
            session.must("ENABLE IMAP4rev2").await?;
        }
        Ok(session)
    }

    /// The copy as it is now.
    pub fn copy(&self) -> &Copy {
        &self.copy
    }

    /// The connection, for what has no method here. What is told on it is not applied.
    pub fn imap(&mut self) -> &mut Imap {
        &mut self.imap
    }

    /// Selects the copy's mailbox, and brings the copy up to date.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn resync(&mut self, copy: Copy, way: Way) -> Result<(), Stopped> {
        let asked = self.world.now();
        self.way = way;
        self.copy = copy;
        self.numbers.clear();
        let parameters = if way == Way::CondStore { " (CONDSTORE)" } else { "" };
        let select = format!("SELECT {}{parameters}", quoted(&self.copy.mailbox));
        let answer = self.must(&select).await?;
        let validity = answer.number("UIDVALIDITY").unwrap_or(0);
        if validity != self.copy.uid_validity {
            if self.copy.uid_validity != 0 {
                env::sometimes!("a client finds another mailbox under a name");
            }
            self.copy.uid_validity = validity;
            self.copy.highest_modseq = 0;
            self.copy.messages.clear();
        }
        let highest = answer.number("HIGHESTMODSEQ").unwrap_or(0);
        match way {
            Way::Plain => self.compare_all().await?,
            Way::CondStore => self.compare_changed().await?,
        }
        self.catch_up().await?;
        self.copy.highest_modseq = highest;
        self.note_state(answer.number("UIDNEXT"), highest, asked);
        Ok(())
    }

    fn note_state(&self, uid_next: Option<u32>, modseq: u64, asked: Monotonic) {
        let (account, mailbox) = (self.account.id, self.copy.mailbox.clone());
        let uid_validity = self.copy.uid_validity;
        if let Some(uid_next) = uid_next {
            let mailbox = mailbox.clone();
            self.note(What::UidNextSeen { account, mailbox, uid_validity, uid_next });
        }
        let seen = What::HighestModSeqSeen { account, mailbox, uid_validity, modseq, asked };
        self.note(seen);
    }

    /// RFC 4549 §4.3.1: what is not told any more is gone.
    async fn compare_all(&mut self) -> Result<(), Stopped> {
        self.must("UID FETCH 1:* (FLAGS)").await?;
        self.drop_vanished();
        Ok(())
    }

    /// RFC 7162 §6: the UIDs say what is gone, CHANGEDSINCE what has changed.
    async fn compare_changed(&mut self) -> Result<(), Stopped> {
        self.must("UID SEARCH ALL").await?;
        self.drop_vanished();
        let since = self.copy.highest_modseq;
        if since > 0 {
            let fetch = format!("UID FETCH 1:* (FLAGS) (CHANGEDSINCE {since})");
            let answer = self.must(&fetch).await?;
            if answer.untagged.iter().any(|it| matches!(it, Untagged::Fetch(_))) {
                env::sometimes!("a client learns by CHANGEDSINCE what has changed");
            }
        } else {
            self.must("UID FETCH 1:* (FLAGS MODSEQ)").await?;
        }
        Ok(())
    }

    /// To be called once every message's UID is known.
    fn drop_vanished(&mut self) {
        let there: BTreeSet<u32> = self.numbers.iter().copied().collect();
        let held: Vec<u32> = self.copy.messages.keys().copied().collect();
        for uid in held.into_iter().filter(|uid| !there.contains(uid)) {
            env::sometimes!("a client finds at a resync that a message is gone");
            self.forget(uid);
        }
    }

    /// Looks at the messages whose UID, flags or token are not known.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn catch_up(&mut self) -> Result<(), Stopped> {
        let modseq = if self.way == Way::CondStore { " MODSEQ" } else { "" };
        // Messages come while the client looks; those will be looked at later.
        for _ in 0..3 {
            let known = self.numbers.iter().copied().max().unwrap_or(0);
            let set = if self.numbers.contains(&0) {
                format!("{}:*", known.saturating_add(1))
            } else {
                let messages = self.copy.messages.iter();
                let unread = messages.filter(|(_, kept)| kept.token.is_none());
                let unread: Vec<String> = unread.map(|(uid, _)| uid.to_string()).collect();
                if unread.is_empty() {
                    return Ok(());
                }
                unread.join(",")
            };
            let items = format!("(FLAGS{modseq} BODY.PEEK[HEADER.FIELDS (SUBJECT)])");
            self.must(&format!("UID FETCH {set} {items}")).await?;
        }
        Ok(())
    }

    /// Compares the copy with what the server says now, and notes what differs.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn verify(&mut self) -> Result<Vec<String>, Stopped> {
        self.catch_up().await?;
        let held = self.copy.messages.clone();
        let numbers = self.numbers.clone();
        let told = |number: u32| numbers.get((number as usize).wrapping_sub(1)) == Some(&0);
        let modseq = if self.way == Way::CondStore { " MODSEQ" } else { "" };
        let answer = self.must(&format!("UID FETCH 1:* (FLAGS{modseq})")).await?;
        let mut shown: BTreeSet<u32> = BTreeSet::new();
        for row in first_rows(&answer) {
            let Some(uid) = row.uid else { continue };
            if !shown.insert(uid) {
                continue;
            }
            match held.get(&uid) {
                // More have come than the client could look at.
                None if told(row.number) => {}
                None => self.differ(format!("UID {uid} is there and was not told")),
                Some(kept) => self.compare_row(uid, kept, row),
            }
        }
        for uid in held.keys().filter(|uid| !shown.contains(uid)) {
            self.differ(format!("UID {uid} is gone and that was not told"));
        }
        Ok(self.note_comparison())
    }

    fn compare_row(&mut self, uid: u32, kept: &Kept, row: &super::imap::Fetched) {
        let flags = row.flags.clone().unwrap_or_default();
        if flags != kept.flags {
            let (known, now) = (&kept.flags, flags);
            self.differ(format!("UID {uid}: {known:?} is known and {now:?} is so"));
        }
        let modseq = row.modseq.unwrap_or(0);
        if modseq != 0 && kept.modseq != 0 && modseq != kept.modseq {
            let known = kept.modseq;
            self.differ(format!("UID {uid}: MODSEQ {known} is known and {modseq} is so"));
        }
    }

    /// Asks what changed since a moment that lies just before or at a known change, and compares
    /// the answer with the copy. Nothing where the copy's MODSEQs are not all known.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn probe_changed_since(&mut self, since: u64) -> Result<(), Stopped> {
        self.catch_up().await?;
        let known = self.copy.messages.values().all(|kept| kept.modseq != 0);
        if self.way != Way::CondStore || !known || since == 0 {
            return Ok(());
        }
        let held = self.copy.messages.clone();
        let fetch = format!("UID FETCH 1:* (FLAGS) (CHANGEDSINCE {since})");
        let answer = self.must(&fetch).await?;
        let told: BTreeSet<u32> = first_rows(&answer).filter_map(|row| row.uid).collect();
        for (uid, kept) in held {
            if kept.modseq > since && !told.contains(&uid) {
                let modseq = kept.modseq;
                self.differ(format!("UID {uid} of {modseq} is not told as changed since {since}"));
            }
        }
        self.note_comparison();
        Ok(())
    }

    fn note_comparison(&mut self) -> Vec<String> {
        let differences = std::mem::take(&mut self.differences);
        let (account, mailbox) = (self.account.id, self.copy.mailbox.clone());
        self.note(What::Resynced { account, mailbox, differences: differences.clone() });
        differences
    }

    /// Tells of a difference; it is noted with the next comparison.
    pub fn differ(&mut self, difference: String) {
        self.differences.push(difference);
    }

    fn note(&self, what: What) {
        self.world.facts().note(&self.host.name(), what);
    }

    /// Notes the copy, as a state from which a client may come back.
    pub fn note_copy(&self) {
        let copy = Arc::new(self.copy.clone());
        self.note(What::OfflineCopy { account: self.account.id, copy });
    }
}

/// FETCH responses with a UID.
fn first_rows(answer: &Answer) -> impl Iterator<Item = &super::imap::Fetched> {
    answer.untagged.iter().filter_map(|it| match it {
        Untagged::Fetch(row) => Some(row),
        _ => None,
    })
}
