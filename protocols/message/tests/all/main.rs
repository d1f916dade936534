//! Tests of the whole crate through its public interface.

mod common;
mod corpus;
mod properties;
mod scan;
