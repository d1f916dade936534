//! The times of one message: when it is given up, when its sender is told that it is late.
//!
//! They follow from when the message could first leave (RFC 4865: what was held back has had no
//! try yet) and from what its sender asked for (RFC 2852).

use std::time::Duration;

use env::Timestamp;
use smtp::{DeliverBy, Late, Trace};

use super::schedule::{Schedule, later};
use crate::deliver::{
    Trouble,
    outbound::{LATE_NOTIFIES, LATE_RETURNS, OutboundItem, SubmissionRecord},
};

/// The times of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Term {
    /// When it could first leave.
    pub(super) begun: Timestamp,
    /// When it is given up.
    pub(super) end: Timestamp,
    /// When its sender is told that it is late.
    pub(super) late: Timestamp,
    /// When a sender wants to hear of it, and nothing else happens.
    notify_at: Option<Timestamp>,
}

impl Term {
    pub(super) fn of(schedule: &Schedule, item: &OutboundItem) -> Self {
        let begun = Timestamp::from_unix_ms(item.received_ms.max(item.hold_until_ms));
        let by = Timestamp::from_unix_ms(item.deliver_by_ms);
        let (end, late) = (schedule.end(begun), schedule.late(begun));
        match item.deliver_by_mode {
            LATE_RETURNS => Self { begun, end: end.min(by), late, notify_at: None },
            LATE_NOTIFIES => Self { begun, end, late: late.min(by), notify_at: Some(by) },
            _ => Self { begun, end, late, notify_at: None },
        }
    }

    /// Whether the time is over at which a sender wants to hear that the message is late (RFC 2852).
    pub(super) fn is_past_wish(&self, now: Timestamp) -> bool {
        self.notify_at.is_some_and(|at| at <= now)
    }

    /// When something becomes of a message that waits for its domain: its sender is told that it is
    /// late, or it is given up.
    pub(super) fn turning(&self, item: &OutboundItem, now: Timestamp) -> Timestamp {
        let late = if item.is_late_told { self.end } else { self.late };
        self.bound(late, now)
    }

    /// A time to try again, no later than the end and than when the sender is to be told.
    pub(super) fn bound(&self, due: Timestamp, now: Timestamp) -> Timestamp {
        let soon = later(now, Duration::from_millis(1));
        let due = due.min(self.end.max(soon));
        match self.notify_at {
            Some(at) if at > now => due.min(at),
            _ => due,
        }
    }
}

/// Why a message must not leave any more: its sender's time is over (RFC 2852 §4.1.3).
pub(super) fn overdue(record: &SubmissionRecord, now: Timestamp) -> Option<Trouble> {
    let is_over = record.deliver_by_mode == LATE_RETURNS && record.deliver_by_ms <= now.unix_ms();
    is_over.then(|| Trouble {
        status: "5.4.7".to_owned(),
        words: "not delivered in the time that the sender gave".to_owned(),
        remote: None,
    })
}

/// What is left of the sender's time, for the next server (RFC 2852 §4.1.4).
pub(super) fn remaining(record: &SubmissionRecord, now: Timestamp) -> Option<DeliverBy> {
    let seconds = record.deliver_by_ms.saturating_sub(now.unix_ms()).div_euclid(1_000);
    let (late, seconds) = match record.deliver_by_mode {
        LATE_RETURNS => (Late::Return, seconds.max(1)),
        LATE_NOTIFIES => (Late::Notify, seconds),
        _ => return None,
    };
    let trace = if record.deliver_by_trace { Trace::Yes } else { Trace::No };
    let seconds = seconds.clamp(-999_999_999, 999_999_999);
    DeliverBy::new(i32::try_from(seconds).unwrap_or(i32::MAX), late, trace)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_unix_ms(ms)
    }

    fn schedule() -> Schedule {
        Schedule::of(&config::Outbound {
            expire_seconds: 1_000,
            delay_notice_seconds: 100,
            ..config::Outbound::default()
        })
    }

    #[test]
    fn a_message_that_was_held_back_has_all_its_time() {
        let item = OutboundItem { received_ms: 5_000, ..OutboundItem::default() };
        let term = Term::of(&schedule(), &item);
        assert_eq!((term.end, term.late), (at(1_005_000), at(105_000)));
        let item = OutboundItem { hold_until_ms: 50_000, ..item };
        let term = Term::of(&schedule(), &item);
        assert_eq!((term.begun, term.end, term.late), (at(50_000), at(1_050_000), at(150_000)));
    }

    #[test]
    fn a_senders_deadline_ends_it_or_makes_it_late() {
        let by = |deliver_by_mode, deliver_by_ms| OutboundItem {
            received_ms: 1_000,
            deliver_by_ms,
            deliver_by_mode,
            ..OutboundItem::default()
        };
        let term = Term::of(&schedule(), &by(LATE_RETURNS, 9_000));
        assert_eq!((term.end, term.late), (at(9_000), at(101_000)));
        assert_eq!(term.bound(at(20_000), at(2_000)), at(9_000));
        assert_eq!(term.bound(at(20_000), at(9_000)), at(9_001), "an end that has passed");
        let term = Term::of(&schedule(), &by(LATE_NOTIFIES, 9_000));
        assert_eq!((term.end, term.late), (at(1_001_000), at(9_000)));
        assert_eq!(term.bound(at(20_000), at(2_000)), at(9_000), "its sender hears in time");
        assert_eq!(term.bound(at(20_000), at(9_500)), at(20_000));
        // One that is longer than ours changes nothing.
        let term = Term::of(&schedule(), &by(LATE_RETURNS, 9_000_000));
        assert_eq!(term.end, at(1_001_000));
    }

    #[test]
    fn what_is_left_goes_to_the_next_server() {
        let record = |deliver_by_mode| SubmissionRecord {
            deliver_by_ms: 10_000,
            deliver_by_mode,
            deliver_by_trace: true,
            ..SubmissionRecord::default()
        };
        let text = |mode, now| remaining(&record(mode), at(now)).map(|by| by.to_string());
        assert_eq!(text(LATE_RETURNS, 500).as_deref(), Some("9;RT"));
        assert_eq!(text(LATE_NOTIFIES, 12_000).as_deref(), Some("-2;NT"));
        assert_eq!(text(0, 0), None);
        assert!(overdue(&record(LATE_RETURNS), at(10_000)).is_some());
        assert!(overdue(&record(LATE_RETURNS), at(9_999)).is_none());
        assert!(overdue(&record(LATE_NOTIFIES), at(11_000)).is_none());
    }
}
