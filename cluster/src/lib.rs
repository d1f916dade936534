//! Coordination between nodes: who is there, who does which work, and who has to hear of a change.
//!
//! Every node is the same program; what they agree on is in the store, in transactions. A message
//! between nodes makes things fast, and decides nothing.

pub mod certificates;
pub mod dkim;
pub mod limits;
pub mod membership;
pub mod mesh;
pub mod salt;
pub mod settings;
pub mod srs;
pub mod tickets;
pub mod wake;
pub mod work;

mod epoch;
mod error;
mod rotating;
mod slice;

pub use epoch::{Epoch, InvalidNodeName, NODE_NAME_BYTES_MAX, NodeName};
pub use error::ClusterError;
pub use membership::{Fence, Membership, Registration, Roster, Standing};
pub use slice::Slice;
