//! The node's open sessions: bounded for the node and for each address, listed, and ended one by
//! one.
//!
//! What is kept of a session is small, because most sessions are idle and there are many; a test
//! holds it below [`limits::SESSION_RECORD_BYTES_MAX`].

use std::{
    collections::{BTreeMap, HashMap, btree_map::Entry},
    net::{IpAddr, Ipv6Addr},
    ops::Bound,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use env::{
    Env, Timestamp,
    probe::{self, Planted},
};
use mail::AccountId;
use tokio::sync::{Notify, watch};

use crate::{
    metrics::{Protocol, RefusedReason},
    settings::Settings,
};

/// The node's open sessions. Cloning is one reference count.
#[derive(Clone)]
pub(crate) struct Sessions {
    shared: Arc<Mutex<Open>>,
    settings: watch::Receiver<Arc<Settings>>,
}

#[derive(Default)]
struct Open {
    sessions: BTreeMap<u64, Arc<OpenSession>>,
    by_address: HashMap<IpAddr, u64>,
}

/// What is known of one session.
pub(crate) struct OpenSession {
    /// As in its log lines.
    pub(crate) id: u64,
    pub(crate) protocol: Protocol,
    pub(crate) peer: IpAddr,
    pub(crate) since: Timestamp,
    /// 0 before the login: no account has that number.
    account: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    is_asked_to_end: AtomicBool,
    end: Notify,
}

/// One session's place among them; it is free again when this is dropped.
pub(crate) struct Place {
    sessions: Sessions,
    session: Arc<OpenSession>,
}

impl Sessions {
    pub(crate) fn new(settings: watch::Receiver<Arc<Settings>>) -> Self {
        Self { shared: Arc::default(), settings }
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.shared.lock().expect("no code panics while it holds the sessions")
    }

    /// Takes a place for a session that begins.
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn enter(
        &self,
        env: &Env,
        protocol: Protocol,
        peer: IpAddr,
    ) -> Result<Place, RefusedReason> {
        let address = network(peer);
        let (total_max, per_address_max) = {
            let limits = &self.settings.borrow().limits;
            (limits.connections_max, limits.connections_per_address_max)
        };
        let mut open = self.open();
        let Open { sessions, by_address } = &mut *open;
        if sessions.len() as u64 >= total_max {
            return Err(RefusedReason::NodeLimit);
        }
        let here = by_address.get(&address).copied().unwrap_or(0);
        if here >= per_address_max && !probe::planted(Planted::AdmitEverybody) {
            env::sometimes!("an address had too many connections");
            return Err(RefusedReason::AddressLimit);
        }
        loop {
            let id = u64::from_le_bytes(env.random_array());
            if let Entry::Vacant(vacant) = sessions.entry(id) {
                let session = OpenSession::new(id, protocol, peer, env.wall());
                let session = Arc::clone(vacant.insert(Arc::new(session)));
                by_address.insert(address, here + 1);
                return Ok(Place { sessions: self.clone(), session });
            }
        }
    }

    /// How many there are.
    pub(crate) fn count(&self) -> u64 {
        self.open().sessions.len() as u64
    }

    /// Sessions behind `after` in the order of their ids, at most `limit` of those that `wanted`
    /// wants.
    pub(crate) fn list(
        &self,
        after: Option<u64>,
        limit: usize,
        wanted: impl Fn(&OpenSession) -> bool,
    ) -> Vec<Arc<OpenSession>> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let open = self.open();
        let behind = open.sessions.range((from, Bound::Unbounded)).map(|(_, session)| session);
        behind.filter(|session| wanted(session)).take(limit).cloned().collect()
    }

    /// Asks a session to say goodbye. `None` where there is none of that id.
    pub(crate) fn end(&self, id: u64) -> Option<Arc<OpenSession>> {
        let session = self.open().sessions.get(&id).cloned()?;
        session.ask_to_end();
        Some(session)
    }
}

impl Place {
    /// Whose it is.
    pub(crate) fn session(&self) -> &Arc<OpenSession> {
        &self.session
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.sessions.open();
        open.sessions.remove(&self.session.id);
        let address = network(self.session.peer);
        if let Some(here) = open.by_address.get_mut(&address) {
            *here -= 1;
            if *here == 0 {
                open.by_address.remove(&address);
            }
        }
    }
}

impl OpenSession {
    fn new(id: u64, protocol: Protocol, peer: IpAddr, since: Timestamp) -> Self {
        Self {
            id,
            protocol,
            peer,
            since,
            account: AtomicU64::new(0),
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            is_asked_to_end: AtomicBool::new(false),
            end: Notify::new(),
        }
    }

    /// One that is nowhere listed.
    pub(crate) fn unlisted(peer: IpAddr) -> Self {
        Self::new(0, Protocol::Http, peer, Timestamp::from_unix_ms(0))
    }

    /// The client has proved who it is.
    pub(crate) fn logged_in(&self, account: AccountId) {
        self.account.store(account.0, Ordering::Relaxed);
    }

    pub(crate) fn account(&self) -> Option<AccountId> {
        let account = self.account.load(Ordering::Relaxed);
        (account != 0).then_some(AccountId(account))
    }

    pub(crate) fn received(&self, bytes: usize) {
        self.bytes_in.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn sent(&self, bytes: usize) {
        self.bytes_out.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Received and sent.
    pub(crate) fn bytes(&self) -> (u64, u64) {
        (self.bytes_in.load(Ordering::Relaxed), self.bytes_out.load(Ordering::Relaxed))
    }

    fn ask_to_end(&self) {
        self.is_asked_to_end.store(true, Ordering::Release);
        self.end.notify_waiters();
    }

    pub(crate) fn is_asked_to_end(&self) -> bool {
        self.is_asked_to_end.load(Ordering::Acquire)
    }

    /// Completes once an administrator wants the session to end; at once from then on.
    pub(crate) async fn asked_to_end(&self) {
        // What is notified before this is polled counts as well; before it is made, the flag does.
        let notified = self.end.notified();
        if !self.is_asked_to_end() {
            notified.await;
        }
    }
}

/// What counts as one address: of IPv6 the first 64 bits, because a client has all that share
/// them (RFC 4291 §2.5.4).
fn network(peer: IpAddr) -> IpAddr {
    match peer {
        IpAddr::V4(_) => peer,
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::config::Limits;
    use crate::limits;

    fn sessions(total_max: u64, per_address_max: u64) -> Sessions {
        let limits = Limits {
            connections_max: total_max,
            connections_per_address_max: per_address_max,
            ..Limits::default()
        };
        let settings = Settings { limits, ..Settings::default() };
        Sessions::new(watch::Sender::new(Arc::new(settings)).subscribe())
    }

    #[test]
    fn places_are_bounded_and_come_back() {
        let (sessions, env) = (sessions(3, 2), Env::system());
        let enter = |peer: &str| sessions.enter(&env, Protocol::Imap, peer.parse().unwrap());
        let first = enter("2001:db8::1").unwrap();
        let _second = enter("2001:db8::2").unwrap();
        assert!(matches!(enter("2001:db8::3"), Err(RefusedReason::AddressLimit)));
        let _third = enter("192.0.2.1").unwrap();
        assert!(matches!(enter("192.0.2.2"), Err(RefusedReason::NodeLimit)));
        drop(first);
        assert!(enter("2001:db8::3").is_ok());
    }

    #[test]
    fn sessions_are_listed_in_pages_and_gone_with_their_places() {
        let (sessions, env) = (sessions(100, 100), Env::system());
        let enter = || sessions.enter(&env, Protocol::Imap, "192.0.2.1".parse().unwrap()).unwrap();
        let places: Vec<_> = (0..10).map(|_| enter()).collect();
        places[3].session().logged_in(AccountId(7));
        let (mut after, mut seen) = (None, Vec::new());
        loop {
            let page = sessions.list(after, 3, |_| true);
            let Some(last) = page.last() else { break };
            after = Some(last.id);
            seen.extend(page.iter().map(|session| session.id));
        }
        assert!(seen.is_sorted() && seen.len() == 10, "{seen:?}");
        let of_seven = sessions.list(None, 3, |it| it.account() == Some(AccountId(7)));
        assert_eq!(of_seven.len(), 1);
        assert_eq!(of_seven[0].id, places[3].session().id);
        drop(places);
        assert_eq!((sessions.count(), sessions.list(None, 3, |_| true).len()), (0, 0));
    }

    #[tokio::test]
    async fn a_session_is_asked_once_and_hears_it_whenever_it_listens() {
        let (sessions, env) = (sessions(9, 9), Env::system());
        let peer = "192.0.2.1".parse().unwrap();
        let place = sessions.enter(&env, Protocol::Imap, peer).unwrap();
        let session = Arc::clone(place.session());
        let mut early = std::pin::pin!(session.asked_to_end());
        assert!(early.as_mut().now_or_never().is_none());
        assert!(sessions.end(session.id.wrapping_add(1)).is_none());
        assert!(sessions.end(session.id).is_some());
        early.await;
        session.asked_to_end().await;
        assert!(session.is_asked_to_end());
    }

    #[test]
    fn what_is_kept_of_a_session_is_small() {
        let bytes = size_of::<OpenSession>() + 2 * size_of::<usize>() + size_of::<(u64, usize)>();
        assert!(bytes <= limits::SESSION_RECORD_BYTES_MAX, "{bytes} bytes");
    }
}
