//! Marks in the product that a simulation reads, and bugs that it can plant.
//!
//! With feature `probes`, which `simulation` turns on, a thread can [`watch`] what the code on it
//! does; a simulation is one thread. Without the feature, as in the program that is shipped, every
//! mark is nothing and [`planted`] is `false`.
//!
//! - `sometimes!("retook a claim after death")` names a point that is seldom reached. A batch of
//!   seeds has to have reached every one of them.
//! - [`observe`] tells what no client can see.
//! - [`planted`] asks whether to do wrong, so that a checker can be shown to notice.

#[cfg(feature = "probes")]
pub use watched::{Sink, Watched, watch};

/// Something that a node did and that no client can see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Observation {
    /// A node acts on work that it has claimed under an epoch.
    ActedOnClaim {
        /// The epoch that the claim hangs on.
        epoch: u64,
        /// What kind of work.
        kind: &'static str,
    },
    /// A transaction that completes claimed work under an epoch has committed.
    CompletedClaim {
        /// The epoch that the claim hangs on.
        epoch: u64,
        /// What kind of work.
        kind: &'static str,
        /// The version at which it committed.
        version: u64,
    },
    /// A node has taken an epoch: any that it had before is over.
    Registered {
        /// Which.
        epoch: u64,
    },
    /// An epoch was ended in a transaction that has committed, as far as its committer saw.
    EpochEnded {
        /// Which.
        epoch: u64,
        /// The version at which it committed.
        version: u64,
    },
}

/// Makes [`Planted`] and the list of all of it from one.
macro_rules! planted {
    ($($(#[$doc:meta])* $bug:ident,)*) => {
        /// A bug that a simulation can plant, to see it found.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Planted {
            $($(#[$doc])* $bug,)*
        }

        impl Planted {
            /// Every bug.
            pub const ALL: &[Self] = &[$(Self::$bug),*];
        }
    };
}

planted! {
    /// Work is completed without a look at the epoch.
    SkipEpochCheck,
    /// A UID is taken from a read that does not conflict.
    UidOutsideTransaction,
    /// An append does not read who is interested.
    DropInterestRead,
    /// An operation that may have committed unseen is done again.
    ForgetOperationId,
    /// A blob that is due is removed without a look at who needs it.
    SweepWithoutMark,
    /// After a commit nobody is rung for, here or elsewhere, and inboxes are read in vain.
    LoseWakeups,
    /// Sessions are not told of messages that have gone.
    ForgetVanished,
    /// CHANGEDSINCE passes over what changed just after the moment.
    ChangedSinceOffByOne,
    /// An email's state is taken from a read that does not conflict.
    StateOutsideTransaction,
    /// A node's view of a mailbox stays as it was when it was first opened.
    StaleView,
    /// Messages are read from the first account, whoever asks.
    ReadWithoutAccount,
    /// Whoever has proved to be somebody may act as anybody.
    SkipAuthorization,
    /// A message is acknowledged whose transaction failed.
    AcceptUnstored,
    /// The sender of a message that reaches some and not others is not told.
    DropReport,
    /// Counters are read and written instead of added to, without a conflict.
    CountBySnapshot,
    /// A quota does not count what the same transaction has added.
    ForgetUsage,
    /// A node acts on its claims whether or not its heartbeats arrive.
    TrustForever,
    /// What a dead node has claimed is not given back.
    KeepDeadClaims,
    /// Work is completed without a look at whether it was completed before.
    CompleteAgain,
    /// A blob that is let go is not put down to be looked at.
    ForgetDueBlob,
    /// A client may open as many connections as it likes.
    AdmitEverybody,
    /// A peer is trusted to end its lines.
    TrustPeers,
    /// Claims of a kind that this release does not know are not given back.
    PassOverUnknownKinds,
    /// A change of settings drops those that this release does not know.
    DropUnknownSettings,
    /// A record that is rewritten loses the fields that this release does not know.
    DropUnknownFields,
    /// What is read of a blob is handed out whether or not it is what was put.
    TrustBytes,
    /// With every connection a task begins that never ends.
    LeaveTasks,
    /// Who has got a message stays in the queue.
    ForgetDelivered,
    /// Who is to get a message later leaves the queue.
    ForgetDeferred,
    /// What another server has taken is not noted where the store is away for longer than a heartbeat may be.
    GiveUpConclusion,
    /// What a dead node had claimed waits for the wall clock of whoever gives it back.
    TrustOwnClock,
}

/// Names a point that a batch of seeds has to have reached.
#[cfg(feature = "probes")]
#[macro_export]
macro_rules! sometimes {
    ($name:literal) => {
        $crate::probe::reached($name)
    };
}

/// Names a point that a batch of seeds has to have reached.
#[cfg(not(feature = "probes"))]
#[macro_export]
macro_rules! sometimes {
    ($name:literal) => {
        ()
    };
}

/// Counts a named point; for [`sometimes!`](crate::sometimes).
#[cfg(feature = "probes")]
pub fn reached(name: &'static str) {
    watched::with(|watched| *watched.reached.entry(name).or_default() += 1);
}

/// Tells a simulation what no client can see.
#[inline]
pub fn observe(observation: impl FnOnce() -> Observation) {
    #[cfg(feature = "probes")]
    watched::observe(observation);
    #[cfg(not(feature = "probes"))]
    let _unwatched = observation;
}

/// Whether a simulation has planted this bug.
#[inline]
pub fn planted(bug: Planted) -> bool {
    #[cfg(feature = "probes")]
    return watched::is_planted(bug);
    #[cfg(not(feature = "probes"))]
    {
        let _never = bug;
        false
    }
}

#[cfg(feature = "probes")]
mod watched {
    use std::{cell::RefCell, collections::BTreeMap};

    use super::{Observation, Planted};

    /// Takes what is observed.
    pub type Sink = Box<dyn Fn(Observation)>;

    /// What this thread's code is watched with.
    pub(super) struct Probes {
        pub(super) reached: BTreeMap<&'static str, u64>,
        planted: Option<Planted>,
        sink: std::rc::Rc<Sink>,
    }

    thread_local! {
        static PROBES: RefCell<Option<Probes>> = const { RefCell::new(None) };
    }

    /// While it lives, this thread's code is watched.
    #[must_use = "nothing is watched once this is dropped"]
    pub struct Watched {
        _private: (),
    }

    /// Watches this thread's code, with at most one bug planted in it.
    pub fn watch(planted: Option<Planted>, sink: Sink) -> Watched {
        let probes = Probes { reached: BTreeMap::new(), planted, sink: std::rc::Rc::new(sink) };
        PROBES.with_borrow_mut(|held| *held = Some(probes));
        Watched { _private: () }
    }

    impl Watched {
        /// The named points that were reached so far, and how often.
        pub fn reached(&self) -> BTreeMap<&'static str, u64> {
            PROBES
                .with_borrow(|held| held.as_ref().map(|it| it.reached.clone()).unwrap_or_default())
        }
    }

    impl Drop for Watched {
        fn drop(&mut self) {
            PROBES.with_borrow_mut(|held| *held = None);
        }
    }

    pub(super) fn with(change: impl FnOnce(&mut Probes)) {
        PROBES.with_borrow_mut(|held| held.as_mut().map(change));
    }

    pub(super) fn is_planted(bug: Planted) -> bool {
        PROBES.with_borrow(|held| held.as_ref().is_some_and(|it| it.planted == Some(bug)))
    }

    pub(super) fn observe(observation: impl FnOnce() -> Observation) {
        // Called without the borrow: whoever takes it may reach a named point.
        let sink = PROBES.with_borrow(|held| held.as_ref().map(|it| it.sink.clone()));
        if let Some(sink) = sink {
            sink(observation());
        }
    }
}

#[cfg(all(test, feature = "probes"))]
mod tests {
    use std::{cell::RefCell, rc::Rc};

    use super::*;

    #[test]
    fn a_watched_thread_tells_and_an_unwatched_one_does_nothing() {
        crate::sometimes!("nobody looks");
        assert!(!planted(Planted::SkipEpochCheck));
        let seen = Rc::new(RefCell::new(Vec::new()));
        let sink = {
            let seen = seen.clone();
            Box::new(move |it| seen.borrow_mut().push(it))
        };
        let watched = watch(Some(Planted::SkipEpochCheck), sink);
        crate::sometimes!("somebody looks");
        crate::sometimes!("somebody looks");
        observe(|| Observation::EpochEnded { epoch: 7, version: 9 });
        assert!(planted(Planted::SkipEpochCheck) && !planted(Planted::SweepWithoutMark));
        assert_eq!(Vec::from_iter(watched.reached()), [("somebody looks", 2)]);
        assert_eq!(*seen.borrow(), [Observation::EpochEnded { epoch: 7, version: 9 }]);
        drop(watched);
        assert!(!planted(Planted::SkipEpochCheck));
    }
}
