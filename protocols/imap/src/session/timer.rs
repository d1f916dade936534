//! The inactivity timer (RFC 9051 §5.4), without a clock.
//!
//! Replies come without the time, so what they restart is restarted when the timer next fires: the
//! client is never logged out early, and at most one period late.

use std::time::Duration;

pub(super) struct Timer {
    deadline: Duration,
    /// The wake-up that was last asked for.
    armed: Option<Duration>,
    restart: bool,
}

/// What a timer wants.
pub(super) enum Fired {
    Nothing,
    WakeAt(Duration),
    Expired,
}

impl Timer {
    pub(super) fn new(deadline: Duration) -> Self {
        Self { deadline, armed: None, restart: false }
    }

    /// The deadline moves; it is later than before, so an earlier wake-up may stand.
    pub(super) fn set(&mut self, deadline: Duration) {
        self.deadline = deadline;
        self.restart = false;
    }

    /// Something happened at a time that is not known.
    pub(super) fn restart_lazily(&mut self) {
        self.restart = true;
    }

    /// Whether the deadline has passed. `busy` means that it cannot count now.
    pub(super) fn fire(&mut self, now: Duration, period: Duration, busy: Busy) -> Fired {
        if now >= self.deadline {
            if !self.restart && busy == Busy::No {
                return Fired::Expired;
            }
            self.set(now + period);
        }
        if self.armed == Some(self.deadline) {
            return Fired::Nothing;
        }
        self.armed = Some(self.deadline);
        Fired::WakeAt(self.deadline)
    }
}

/// Whether the server, not the client, is at work.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Busy {
    Yes,
    No,
}
