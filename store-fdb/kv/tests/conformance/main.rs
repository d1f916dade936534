//! The conformance suite: one list of tests, run on every engine.
//!
//! A test takes a [`Store`]: a database and a prefix that is this test's own, so that the tests
//! of one FoundationDB cluster do not meet.

#![expect(clippy::unwrap_used, reason = "these are tests, though most bear no test attribute")]

mod atomics;
mod conflicts;
mod cursors;
#[cfg(feature = "fdb")]
mod fdb_restart;
mod harness;
mod history;
mod limits;
mod model;
mod operations;
mod overlaps;
mod overlay;
mod planted;
mod ranges;
mod retry;
mod serializable;
#[cfg(feature = "fdb")]
mod server;
mod stamps;
mod watches;

use harness::Store;

macro_rules! suite {
    ($($module:ident { $($name:ident,)* })*) => {
        mod memory {
            $(mod $module {
                $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    crate::$module::$name(crate::Store::memory()).await;
                })*
            })*
        }

        mod embedded {
            $(mod $module {
                $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    crate::$module::$name(crate::Store::embedded()).await;
                })*
            })*
        }

        #[cfg(feature = "fdb")]
        mod fdb {
            $(mod $module {
                $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    if let Some(store) = crate::Store::fdb() {
                        crate::$module::$name(store).await;
                    }
                })*
            })*
        }
    };
}

suite! {
    operations {
        what_is_committed_is_read,
        a_cleared_range_is_half_open,
        empty_keys_and_values_exist,
        a_transaction_sees_one_moment,
        nothing_of_a_dropped_transaction_remains,
        a_committed_transaction_cannot_be_used,
        read_versions_never_go_back,
        counts_tell_what_was_done,
    }
    atomics {
        every_operation_at_its_edges,
        operations_apply_in_order,
        concurrent_additions_all_count,
    }
    conflicts {
        exactly_the_overlapping_ones,
        a_limited_range_conflicts_where_it_read,
        own_writes_are_read_without_conflict,
        declared_conflicts_count,
        write_skew_is_refused,
    }
    cursors {
        a_cursor_misses_none_and_sees_none_twice,
    }
    overlaps {
        conflicts_are_exactly_the_overlaps,
    }
    overlay {
        reads_agree_with_a_model,
        what_is_read_ahead_is_of_one_moment_and_conflicts,
        uncommitted_stamps_cannot_be_read,
        ranges_stop_before_uncommitted_stamps,
        only_a_clear_makes_a_stamped_value_readable,
    }
    ranges {
        pages_in_both_directions,
        limits_and_page_sizes,
        a_large_range_comes_in_bounded_pages,
    }
    stamps {
        stamps_sort_as_commits_do,
        several_stamps_of_one_transaction,
        bad_offsets_are_refused,
    }
    watches {
        a_watch_is_told_of_a_change,
        a_change_before_the_commit_is_told,
        a_watch_of_a_dropped_transaction_is_cancelled,
        every_kind_of_write_is_told,
        waiters_are_woken_in_a_chain,
        watches_are_bounded,
        a_rewritten_value_loses_no_watch,
        a_watch_over_an_own_write_waits_for_the_next,
    }
    limits {
        keys_and_values_at_their_edges,
        transactions_at_their_edge,
        system_keys_are_out_of_reach,
        inverted_ranges_are_refused,
        old_transactions_are_refused,
    }
    retry {
        domain_errors_abort_at_once,
        conflicts_are_retried,
        a_closure_error_of_the_store_is_retried,
        a_run_tells_its_place,
    }
    model {
        histories_are_strictly_serializable,
    }
    serializable {
        transfers_keep_the_sum,
        unique_counters_lose_nothing,
        readers_see_whole_batches,
    }
}
