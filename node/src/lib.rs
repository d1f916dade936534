//! One Rookery node: listeners, TLS, one driver a protocol, policy.
//!
//! [`Node::start`] brings everything up over one [`env::Env`]; the CLI and the simulation call
//! it alike. A node keeps nothing that matters: whatever must survive it is in the store.

pub mod auth;
pub mod config;
pub mod http;
pub mod metrics;
pub mod tls;
