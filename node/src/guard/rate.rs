//! What clients may do in an hour or a day, counted by all nodes together.
//!
//! | key | value | lifecycle |
//! |---|---|---|
//! | (Rate, period, window, what, subject) | u64 LE | atomic ADD with what is allowed, or with each event; swept two windows later, an event's also with the block that it leads to |
//!
//! `period` is 1 for hours and 2 for days, `window` whole ones since 1970, before the rest, so that
//! a sweep is one range. `what` is a scope and a unit, an event, or new triplets of greylisting. `subject` is an account, a
//! network, or a hash of a sender.
//!
//! The count is over the last hour or day, estimated from two windows: this one, and the part of
//! the one before that is not over yet. Reads are snapshots, so that nothing conflicts: messages that
//! are judged at the same moment may exceed a limit by their number. An unknown commit can count
//! twice, which errs on the side of the limit. What is refused is not counted.

use env::Timestamp;
use futures_util::future::try_join_all;
use kv::{AtomicOp, Subspace, Transaction, tuple::pack};
use mail::StoreError;

/// Whom a limit is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// An account that submits.
    Account,
    /// A sender's address: of a submission by itself; on port 25, where anybody may claim it, together
    /// with the client's neighbourhood, so that nobody uses up another's share.
    Sender,
    /// A client.
    Address,
    /// A client's neighbourhood.
    Network,
}

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    Connections,
    Messages,
    Recipients,
}

/// In what time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Period {
    Hour = 1,
    Day = 2,
}

impl Period {
    pub(crate) const ALL: [Self; 2] = [Self::Hour, Self::Day];

    fn seconds(self) -> u64 {
        match self {
            Self::Hour => 3600,
            Self::Day => 86_400,
        }
    }
}

/// A limit that can be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rate {
    /// The setting's.
    pub(crate) name: &'static str,
    pub(crate) scope: Scope,
    pub(crate) unit: Unit,
    pub(crate) period: Period,
}

const fn rate(name: &'static str, scope: Scope, unit: Unit, period: Period) -> Rate {
    Rate { name, scope, unit, period }
}

/// How many limits there are. A number, because release builds of a type whose size asks for [`RATES`] go
/// round in a circle.
pub(crate) const RATES_COUNT: usize = 14;

/// Every limit.
#[rustfmt::skip]
pub(crate) const RATES: [Rate; RATES_COUNT] = [
    rate("guard.rate.account.messages_per_hour", Scope::Account, Unit::Messages, Period::Hour),
    rate("guard.rate.account.messages_per_day", Scope::Account, Unit::Messages, Period::Day),
    rate("guard.rate.account.recipients_per_hour", Scope::Account, Unit::Recipients, Period::Hour),
    rate("guard.rate.account.recipients_per_day", Scope::Account, Unit::Recipients, Period::Day),
    rate("guard.rate.sender.messages_per_hour", Scope::Sender, Unit::Messages, Period::Hour),
    rate("guard.rate.sender.messages_per_day", Scope::Sender, Unit::Messages, Period::Day),
    rate("guard.rate.sender.recipients_per_hour", Scope::Sender, Unit::Recipients, Period::Hour),
    rate("guard.rate.sender.recipients_per_day", Scope::Sender, Unit::Recipients, Period::Day),
    rate("guard.rate.address.connections_per_hour", Scope::Address, Unit::Connections, Period::Hour),
    rate("guard.rate.address.messages_per_hour", Scope::Address, Unit::Messages, Period::Hour),
    rate("guard.rate.address.recipients_per_hour", Scope::Address, Unit::Recipients, Period::Hour),
    rate("guard.rate.network.connections_per_hour", Scope::Network, Unit::Connections, Period::Hour),
    rate("guard.rate.network.messages_per_hour", Scope::Network, Unit::Messages, Period::Hour),
    rate("guard.rate.network.recipients_per_hour", Scope::Network, Unit::Recipients, Period::Hour),
];

impl Rate {
    fn code(self) -> &'static str {
        match (self.scope, self.unit) {
            (Scope::Account, Unit::Messages) => "am",
            (Scope::Account, Unit::Recipients) => "ar",
            (Scope::Account, Unit::Connections) => "ac",
            (Scope::Sender, Unit::Messages) => "sm",
            (Scope::Sender, Unit::Recipients) => "sr",
            (Scope::Sender, Unit::Connections) => "sc",
            (Scope::Address, Unit::Messages) => "cm",
            (Scope::Address, Unit::Recipients) => "cr",
            (Scope::Address, Unit::Connections) => "cc",
            (Scope::Network, Unit::Messages) => "nm",
            (Scope::Network, Unit::Recipients) => "nr",
            (Scope::Network, Unit::Connections) => "nc",
        }
    }
}

/// A moment within an hour or a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Window {
    period: Period,
    number: u64,
    /// Seconds since its begin.
    elapsed: u64,
}

impl Window {
    fn at(period: Period, now: Timestamp) -> Self {
        // Before 1970 there is no clock at all, and one window is as good as another.
        let seconds = u64::try_from(now.unix_seconds()).unwrap_or(0);
        let length = period.seconds();
        Self { period, number: seconds / length, elapsed: seconds % length }
    }

    fn estimate(self, this: u64, before: u64) -> u64 {
        let length = self.period.seconds();
        // Rounded up: a limit is not passed at the turn of the hour.
        let left = before.saturating_mul(length - self.elapsed).div_ceil(length);
        this.saturating_add(left)
    }
}

/// One counter: its key in this window and the one before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Counter {
    window: Window,
    this: Vec<u8>,
    before: Vec<u8>,
}

impl Counter {
    pub(crate) fn new(period: Period, what: &str, subject: &[u8], now: Timestamp) -> Self {
        let window = Window::at(period, now);
        let key =
            |number: u64| pack(&(Subspace::Rate as u64, period as u64, number, what, subject));
        Self { window, this: key(window.number), before: key(window.number.saturating_sub(1)) }
    }

    /// About how much there was in the last hour or day. Takes part in no conflict.
    pub(crate) async fn read(&self, tx: &Transaction) -> Result<u64, StoreError> {
        let (this, before) =
            tokio::try_join!(tx.get_snapshot(&self.this), tx.get_snapshot(&self.before))?;
        Ok(self.window.estimate(count(this.as_deref())?, count(before.as_deref())?))
    }

    /// The same, and whoever counts meanwhile makes the transaction run again: of two, one sees both.
    pub(crate) async fn read_exactly(&self, tx: &Transaction) -> Result<u64, StoreError> {
        tx.add_read_conflict_key(&self.this);
        self.read(tx).await
    }

    pub(crate) fn add(&self, tx: &Transaction, amount: u64) {
        tx.atomic(&self.this, &amount.to_le_bytes(), AtomicOp::Add);
    }

    /// Forgets what was counted.
    pub(crate) fn clear(&self, tx: &Transaction) {
        tx.clear(&self.this);
        tx.clear(&self.before);
    }
}

fn count(value: Option<&[u8]>) -> Result<u64, StoreError> {
    let Some(value) = value else { return Ok(0) };
    let bytes = value
        .try_into()
        .map_err(|_| StoreError::damaged("rate counter", format!("{} bytes", value.len())))?;
    Ok(u64::from_le_bytes(bytes))
}

/// Something that is allowed where a limit has room for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Charge {
    pub(crate) scope: Scope,
    counter: Counter,
    amount: u64,
    limit: u64,
}

/// Whom a client's doings are counted for, each as its key's bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Subjects {
    pub(crate) account: Option<Vec<u8>>,
    pub(crate) sender: Option<Vec<u8>>,
    pub(crate) address: Option<Vec<u8>>,
    pub(crate) network: Option<Vec<u8>>,
}

impl Subjects {
    fn of(&self, scope: Scope) -> Option<&[u8]> {
        match scope {
            Scope::Account => self.account.as_deref(),
            Scope::Sender => self.sender.as_deref(),
            Scope::Address => self.address.as_deref(),
            Scope::Network => self.network.as_deref(),
        }
    }
}

/// What to ask for where limits are set.
pub(crate) fn charges(
    limits: &[u64; RATES_COUNT],
    subjects: &Subjects,
    amounts: &[(Unit, u64)],
    now: Timestamp,
) -> Vec<Charge> {
    let mut charges = Vec::new();
    for (rate, limit) in RATES.iter().zip(limits).filter(|(_, limit)| **limit > 0) {
        let amount = amounts.iter().find(|(unit, _)| *unit == rate.unit);
        if let (Some(subject), Some((_, amount))) = (subjects.of(rate.scope), amount) {
            let counter = Counter::new(rate.period, rate.code(), subject, now);
            charges.push(Charge { scope: rate.scope, counter, amount: *amount, limit: *limit });
        }
    }
    charges
}

/// The most recipients that a message can have in view of these limits.
pub(crate) fn recipients_max(limits: &[u64; RATES_COUNT], subjects: &Subjects) -> u64 {
    let limits = RATES.iter().zip(limits).filter(|(rate, limit)| {
        rate.unit == Unit::Recipients && **limit > 0 && subjects.of(rate.scope).is_some()
    });
    limits.map(|(_, limit)| *limit).min().unwrap_or(u64::MAX)
}

/// The first whose limit has no room. Takes part in no conflict.
pub(crate) async fn exceeded(
    tx: &Transaction,
    charges: &[Charge],
) -> Result<Option<Scope>, StoreError> {
    let counts = try_join_all(charges.iter().map(|charge| charge.counter.read(tx))).await?;
    let over = charges
        .iter()
        .zip(counts)
        .find(|(charge, count)| count.saturating_add(charge.amount) > charge.limit);
    Ok(over.map(|(charge, _)| charge.scope))
}

/// Counts them.
pub(crate) fn charge(tx: &Transaction, charges: &[Charge]) {
    for charge in charges {
        charge.counter.add(tx, charge.amount);
    }
}

/// Takes out what no estimate reads any more; one window more is kept for nodes whose clocks are
/// behind.
pub(crate) fn sweep(tx: &Transaction, now: Timestamp) {
    for period in Period::ALL {
        let number = Window::at(period, now).number.saturating_sub(2);
        let begin = pack(&(Subspace::Rate as u64, period as u64));
        let end = pack(&(Subspace::Rate as u64, period as u64, number));
        tx.clear_range(&begin, &end);
    }
}

#[cfg(test)]
mod tests {
    use kv::{Database, RangeQuery};

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix_seconds(1_800_000 * 3600 + seconds)
    }

    fn limits(name: &str, limit: u64) -> [u64; RATES_COUNT] {
        let mut limits = [0; RATES_COUNT];
        limits[RATES.iter().position(|rate| rate.name == name).unwrap()] = limit;
        limits
    }

    #[test]
    fn names_and_keys_are_each_their_own() {
        let mut names: Vec<_> = RATES.iter().map(|rate| rate.name).collect();
        let mut codes: Vec<_> =
            RATES.iter().map(|rate| (rate.code(), rate.period as u64)).collect();
        names.sort_unstable();
        names.dedup();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!((names.len(), codes.len()), (RATES.len(), RATES.len()));
    }

    #[test]
    fn the_window_before_fades() {
        let estimate = |seconds| Window::at(Period::Hour, at(seconds)).estimate(1, 10);
        assert_eq!((estimate(0), estimate(1800), estimate(3599)), (11, 6, 2));
        let day = Window::at(Period::Day, Timestamp::from_unix_seconds(86_400 * 7 + 43_200));
        assert_eq!((day.number, day.estimate(0, 10)), (7, 5));
        assert_eq!(Window::at(Period::Day, Timestamp::from_unix_ms(-5)).number, 0);
    }

    #[test]
    fn only_limits_that_are_set_are_asked_for() {
        let subjects = Subjects { account: Some(vec![1]), ..Subjects::default() };
        let amounts = [(Unit::Messages, 1), (Unit::Recipients, 7)];
        let asked = |limits| charges(&limits, &subjects, &amounts, at(0)).len();
        assert_eq!(asked([0; RATES_COUNT]), 0);
        assert_eq!(asked(limits("guard.rate.account.messages_per_hour", 5)), 1);
        assert_eq!(asked(limits("guard.rate.network.messages_per_hour", 5)), 0);
        let limits = limits("guard.rate.account.recipients_per_day", 9);
        assert_eq!(recipients_max(&limits, &subjects), 9);
        assert_eq!(recipients_max(&limits, &Subjects::default()), u64::MAX);
    }

    #[tokio::test]
    async fn limits_hold_over_windows_and_are_swept() {
        let db = Database::memory(env::Env::system());
        let subjects = &Subjects { address: Some(vec![1]), ..Subjects::default() };
        let limits = &limits("guard.rate.address.messages_per_hour", 3);
        let try_at = async |seconds| {
            let charges = &charges(limits, subjects, &[(Unit::Messages, 1)], at(seconds));
            let run = |tx: Transaction| async move {
                let over = exceeded(&tx, charges).await?;
                if over.is_none() {
                    charge(&tx, charges);
                }
                Ok::<_, StoreError>(over)
            };
            db.run(run).await.unwrap()
        };
        for seconds in [3000, 3100, 3200] {
            assert_eq!(try_at(seconds).await, None);
        }
        assert_eq!(try_at(3300).await, Some(Scope::Address));
        // A third of the three is over by then.
        assert_eq!(try_at(3600 + 1100).await, Some(Scope::Address));
        assert_eq!(try_at(3600 + 1300).await, None);
        let count = async || {
            let prefix = Subspace::Rate.prefix();
            let read = |tx: Transaction| {
                let query = RangeQuery::prefix(&prefix);
                async move { Ok::<_, kv::Error>(tx.range(query).collect().await?.len()) }
            };
            db.run(read).await.unwrap()
        };
        assert_eq!(count().await, 2);
        for (hours, left) in [(2, 2), (3, 1), (4, 0)] {
            let now = at(hours * 3600);
            let swept = |tx: Transaction| async move {
                sweep(&tx, now);
                Ok::<_, StoreError>(())
            };
            db.run(swept).await.unwrap();
            assert_eq!(count().await, left, "after {hours} hours");
        }
    }
}
