//! Facts: what clients, nodes and faults saw and did, in order. Workloads write them, checks read
//! them.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use blob::BlobName;
use env::{Monotonic, probe::Observation};
use mail::AccountId;

use crate::{clients::offline, executor::Core};

/// One thing that somebody knows to have happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fact {
    /// Virtual time of the world, which no host's clock need agree with.
    pub at: Monotonic,
    /// The host that knows it.
    pub host: Arc<str>,
    /// What happened.
    pub what: What,
}

/// What can be known. A message's *token* is a word that no other message has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// A client has begun to send a message.
    Sending {
        /// The message.
        token: String,
        /// Who shall get it.
        recipients: Vec<String>,
    },
    /// A client was told 250 for a recipient, or OK for an APPEND.
    Accepted {
        /// The message.
        token: String,
        /// Who gets it.
        recipient: String,
        /// The reply.
        reply: String,
    },
    /// A client was refused, so that the message may be there once or not at all.
    Refused {
        /// The message.
        token: String,
        /// Who was to get it.
        recipient: String,
        /// The reply, or how the connection ended.
        reply: String,
    },
    /// A client saw a message.
    UidSeen {
        /// Whose.
        account: AccountId,
        /// Where.
        mailbox: String,
        /// Of the mailbox.
        uid_validity: u32,
        /// Of the message.
        uid: u32,
        /// The message, where the client looked.
        token: Option<String>,
    },
    /// A client saw a mailbox's UIDNEXT.
    UidNextSeen {
        /// Whose.
        account: AccountId,
        /// Where.
        mailbox: String,
        /// Of the mailbox.
        uid_validity: u32,
        /// What was told.
        uid_next: u32,
    },
    /// A client saw that a message is gone.
    Vanished {
        /// Whose.
        account: AccountId,
        /// Where.
        mailbox: String,
        /// Of the mailbox.
        uid_validity: u32,
        /// Of the message.
        uid: u32,
    },
    /// A client was told the UID that a message has elsewhere (COPYUID).
    UidTold {
        /// Whose.
        account: AccountId,
        /// Where the message is now.
        mailbox: String,
        /// Of that mailbox.
        uid_validity: u32,
        /// Of the message.
        uid: u32,
        /// The message, where the client knew it.
        token: Option<String>,
    },
    /// A client has begun to APPEND a message.
    Appending {
        /// Whose.
        account: AccountId,
        /// Where.
        mailbox: String,
        /// The message.
        token: String,
    },
    /// A client was told that its APPEND is done.
    Appended {
        /// Whose.
        account: AccountId,
        /// Where.
        mailbox: String,
        /// Of the mailbox.
        uid_validity: u32,
        /// Of the message.
        uid: u32,
        /// The message.
        token: String,
    },
    /// A client saw a message's flags under a MODSEQ.
    FlagsSeen {
        /// Whose.
        account: AccountId,
        /// Where.
        mailbox: String,
        /// Of the mailbox.
        uid_validity: u32,
        /// Of the message.
        uid: u32,
        /// Of the flags.
        modseq: u64,
        /// In order.
        flags: Vec<String>,
    },
    /// A client that selected a mailbox saw its HIGHESTMODSEQ.
    HighestModSeqSeen {
        /// Whose.
        account: AccountId,
        /// Where.
        mailbox: String,
        /// Of the mailbox.
        uid_validity: u32,
        /// What was told.
        modseq: u64,
        /// When the client asked.
        asked: Monotonic,
    },
    /// A client goes offline with this copy.
    OfflineCopy {
        /// Whose.
        account: AccountId,
        /// What it holds.
        copy: Arc<offline::Copy>,
    },
    /// A client read a whole message.
    BytesRead {
        /// Who read.
        account: AccountId,
        /// The message.
        token: String,
        /// Whom it says that it is for.
        marks: Vec<String>,
    },
    /// A client read a message's bytes, and they are not what was sent.
    WrongBytes {
        /// Whose.
        recipient: String,
        /// What is wrong.
        what: String,
    },
    /// A client that asked for a message's bytes was told that they are damaged.
    ToldDamaged {
        /// Whose.
        recipient: String,
        /// Where the bytes are, where the message is still there.
        blob: Option<BlobName>,
        /// When the client asked.
        asked: Monotonic,
    },
    /// A blob is no longer what was put.
    Rotted {
        /// Which.
        blob: BlobName,
    },
    /// A client was let in where it has no business.
    Trespassed {
        /// Who it is.
        account: AccountId,
        /// What it was let do.
        deed: String,
    },
    /// A client waits for changes from now on.
    Idling {
        /// Whose.
        account: AccountId,
        /// Where.
        mailbox: String,
    },
    /// A client has heard of a change, or waits no longer.
    IdleEnded {
        /// Whose.
        account: AccountId,
        /// Where.
        mailbox: String,
    },
    /// An idling client learned of a change.
    Learned {
        /// Whose.
        account: AccountId,
        /// What it learned of: a token, or another name for the change.
        change: String,
        /// How long after the change was acknowledged to whoever made it.
        after: Duration,
    },
    /// A client's offline copy was compared with what the server says.
    Resynced {
        /// Whose.
        account: AccountId,
        /// Where.
        mailbox: String,
        /// What differs; empty where nothing does.
        differences: Vec<String>,
    },
    /// A remote server took or refused a message.
    Remote {
        /// The message.
        token: String,
        /// For whom.
        recipient: String,
        /// The machine that sent it.
        from: String,
        /// What the remote server did.
        did: RemoteDid,
    },
    /// A remote server took a report.
    Returned {
        /// The whole of it.
        text: String,
    },
    /// A worker has begun with an item of claimed work, or come to its end.
    Work {
        /// The item.
        item: u64,
        /// The zone that it lies in.
        zone: String,
        /// The epoch that has claimed the zone.
        epoch: u64,
        /// How far it is.
        step: WorkStep,
    },
    /// A worker does nothing more under this epoch, from now on.
    WorkerGone {
        /// Its epoch.
        epoch: u64,
    },
    /// A hostile client found out what a node lets it do.
    Bound {
        /// What was tried.
        what: &'static str,
        /// How much of it the node let happen.
        reached: u64,
        /// How much it may let happen.
        most: u64,
    },
    /// Something happened to a node.
    Node(NodeEvent),
    /// A fault began or ended.
    Fault(String),
    /// What a node did and no client can see.
    Observed(Observation),
    /// Something worth reading in a trace that no check looks at.
    Note(String),
}

/// How far a worker is with an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkStep {
    /// It was put down to be done.
    Queued,
    /// It acts.
    Begun,
    /// The transaction that completes it has committed.
    Done,
    /// It is left for another try.
    Failed,
}

/// What a remote server did with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RemoteDid {
    /// Has all of it, and has not answered.
    Received,
    /// Took it and said so.
    Accepted,
    /// Took it, and ended the connection without an answer.
    AcceptedSilently,
    /// The client went on after it was told that the message was taken.
    Heard,
    /// Refused it for now.
    Deferred,
}

/// What happens to a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeEvent {
    /// A process began.
    Started,
    /// Every port accepts.
    Serving,
    /// It ended at once, wherever it stood.
    Crashed,
    /// It began to say goodbye.
    Draining,
    /// It ended by itself.
    Ended(String),
    /// It could not start.
    Failed(String),
}

impl fmt::Display for Fact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.at.since_start();
        write!(f, "{:>6}.{:06} {:<12} ", at.as_secs(), at.subsec_micros(), self.host)?;
        match &self.what {
            What::Fault(text) => write!(f, "FAULT {text}"),
            What::Note(text) => f.write_str(text),
            What::Node(event) => write!(f, "node: {event:?}"),
            What::Observed(observation) => write!(f, "{observation:?}"),
            what => write!(f, "{what:?}"),
        }
    }
}

/// The journal of a world. Clones write to the same one.
#[derive(Clone)]
pub struct Facts {
    core: Arc<Core>,
    facts: Arc<Mutex<Vec<Fact>>>,
}

impl Facts {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        Self { core, facts: Arc::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Fact>> {
        self.facts.lock().expect("no code panics while it notes")
    }

    /// Notes that `host` knows this now.
    pub fn note(&self, host: &str, what: What) {
        let fact = Fact { at: self.core.now(), host: host.into(), what };
        if let Some(tracer) = self.core.tracer() {
            tracer.fact(&fact);
        }
        self.lock().push(fact);
    }

    /// All facts so far, in order.
    pub fn all(&self) -> Vec<Fact> {
        self.lock().clone()
    }

    /// Looks at all facts so far without a copy.
    pub fn with<T>(&self, look: impl FnOnce(&[Fact]) -> T) -> T {
        look(&self.lock())
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.lock().len()
    }
}
