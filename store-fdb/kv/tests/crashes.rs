//! The embedded engine's process is killed, its disk is full, its files are damaged.

#![expect(clippy::unwrap_used, reason = "these are tests, though some helpers bear no attribute")]

mod crashes {
    mod damage;
    mod full_disk;
    mod holes;
    mod kills;
}
