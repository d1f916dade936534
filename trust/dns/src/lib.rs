//! What names say: a resolver over [`env::Env`], with a bounded cache, DNSSEC validation and a
//! stub for tests.
//!
//! It is a stub resolver (RFC 1034 §5.3.1): it asks recursive servers, follows aliases, and, unless
//! told otherwise, validates what they say itself (RFC 4035 §4.2), so that DANE does not hang on
//! the way to them. Hickory decodes messages and checks signatures; sockets, timers and the clock are
//! [`env::Env`]'s.
//!
//! Invariants: every lookup ends within [`Settings::timeout`] and sends at most
//! [`limits::QUERIES_PER_LOOKUP`] queries; nothing that an answer holds grows memory past
//! [`limits`]; no answer makes it panic.
//!
//! Names are given and returned as A-labels (RFC 5890 §2.3.2.1), without a dot at their end, and
//! returned in lower case. A name with other than ASCII in it is [`LookupError::BadName`].
//!
//! Deliberately absent: iteration from the root, encrypted transports, zone transfers, the hosts
//! file and search domains. Signature checking remembers RRsets by the machine's own clock
//! (`hickory-net`), so the simulation resolves by [`Resolver::fixed`].

mod answer;
mod cache;
mod chain;
pub mod limits;
mod name;
mod places;
mod proof;
mod resolver;
mod scope;
mod settings;
mod transport;
mod update;
mod zone;

pub use answer::{Answer, LookupError, Mx, Security, Tlsa, Unavailable};
pub use resolver::Resolver;
pub use settings::{Settings, SettingsError, TrustAnchors, Validation};
pub use update::{UpdateError, Updater};
pub use zone::Zone;
