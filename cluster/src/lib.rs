//! Coordination between nodes: who is there, who does which work, and who has to hear of a change.
//!
//! Every node is the same program; what they agree on is in the store, in transactions. A message
//! between nodes makes things fast, and decides nothing.

mod epoch;
pub mod limits;
pub mod mesh;
pub mod work;

pub use epoch::{Epoch, InvalidNodeName, NODE_NAME_BYTES_MAX, NodeName};
