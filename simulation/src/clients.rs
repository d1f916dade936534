//! Clients of a world's nodes: what of each protocol the workloads need.

pub mod smtp;
