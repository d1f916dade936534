//! One Rookery node: listeners, TLS, one driver a protocol, policy.
//!
//! [`Node::start`] brings everything up over one [`env::Env`]; the CLI and the simulation call
//! it alike. A node keeps nothing that matters: whatever must survive it is in the store.

pub mod admin;
mod announce;
pub mod auth;
pub mod config;
pub mod date;
pub mod deliver;
pub mod guard;
mod hex;
pub mod http;
pub mod hub;
mod imap;
mod judging;
pub mod limits;
pub mod logs;
pub mod metrics;
pub mod names;
mod node;
mod outbound;
mod patience;
mod peers;
mod server;
mod services;
mod sessions;
pub mod settings;
mod signing;
mod smtp;
mod stop;
pub mod stores;
pub mod tls;
mod transport;
mod upkeep;

pub use announce::Announcer;
pub use node::{Ending, Node, StartError, Started};
pub use peers::JoinError;
pub use stores::Stores;
