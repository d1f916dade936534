//! Coordination between nodes. So far: the work queue's keys and how items enter it.
//!
//! Claims, membership and wake-ups across nodes come with the cluster's own issue; what a node
//! writes today is what they will read.

pub mod work;
