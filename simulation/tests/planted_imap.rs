//! The checks of what IMAP clients see, shown to fail: each bug is planted, is caught within the
//! stated number of seeds, and the same seeds are clean without it.

use std::time::Duration;

use env::probe::Planted;
use simulation::{Outcome, Plan, Property, Seed, play};

/// A bug, and who finds it.
struct Case {
    planted: Planted,
    property: Property,
    parts: &'static [&'static str],
    /// Seeds within which it is caught.
    seeds_max: u64,
}

const NODES: u8 = 3;
const DURATION: Duration = Duration::from_secs(120);

fn played(seed: u64, parts: &[&'static str], planted: Option<Planted>) -> Outcome {
    let drawn = Plan::draw(Seed(seed), NODES, DURATION);
    play(&Plan { parts: parts.to_vec(), planted, ..drawn })
}

#[expect(clippy::print_stdout, reason = "the list of planted bugs is to be read")]
fn check(case: &Case) {
    for seed in 1..=case.seeds_max {
        let clean = played(seed, case.parts, None);
        assert!(clean.is_clean(), "seed {seed}: {:#?}", clean.violations);
        let outcome = played(seed, case.parts, Some(case.planted));
        let caught = outcome.violations.iter().find(|it| it.property == case.property);
        if let Some(caught) = caught {
            println!("{:?}: seed {seed} of {}: {caught}", case.planted, case.seeds_max);
            return;
        }
    }
    panic!("{:?} is not caught within {} seeds", case.planted, case.seeds_max);
}

#[test]
fn a_uid_from_a_read_that_does_not_conflict_is_caught() {
    check(&Case {
        planted: Planted::UidOutsideTransaction,
        property: Property::P2,
        parts: &["moves"],
        seeds_max: 4,
    });
}

#[test]
fn an_append_that_does_not_look_who_is_interested_is_caught() {
    check(&Case {
        planted: Planted::DropInterestRead,
        property: Property::P3,
        parts: &["idlers"],
        seeds_max: 3,
    });
}

#[test]
fn a_state_from_a_read_that_does_not_conflict_is_caught() {
    check(&Case {
        planted: Planted::StateOutsideTransaction,
        property: Property::P3,
        parts: &["flags"],
        seeds_max: 4,
    });
}

#[test]
fn a_view_that_stays_behind_is_caught() {
    check(&Case {
        planted: Planted::StaleView,
        property: Property::P3,
        parts: &["moves"],
        seeds_max: 2,
    });
}

#[test]
fn anothers_messages_are_caught() {
    check(&Case {
        planted: Planted::ReadWithoutAccount,
        property: Property::P8,
        parts: &["flags", "idlers"],
        seeds_max: 2,
    });
}

#[test]
fn wakeups_that_are_lost_on_every_way_are_caught() {
    check(&Case {
        planted: Planted::LoseWakeups,
        property: Property::P3,
        parts: &["idlers"],
        seeds_max: 2,
    });
}

#[test]
fn an_operation_that_is_done_again_is_caught() {
    check(&Case {
        planted: Planted::ForgetOperationId,
        property: Property::P1,
        parts: &["delivery", "idlers", "moves", "store-noise"],
        seeds_max: 20,
    });
}

#[test]
fn a_vanished_message_that_is_not_told_is_caught() {
    check(&Case {
        planted: Planted::ForgetVanished,
        property: Property::P3,
        parts: &["moves"],
        seeds_max: 2,
    });
}

#[test]
fn a_changed_since_that_is_off_by_one_is_caught() {
    check(&Case {
        planted: Planted::ChangedSinceOffByOne,
        property: Property::P3,
        parts: &["offline", "moves"],
        seeds_max: 3,
    });
}

#[test]
fn a_permission_check_that_is_left_out_is_caught() {
    check(&Case {
        planted: Planted::SkipAuthorization,
        property: Property::P8,
        parts: &["intruder"],
        seeds_max: 4,
    });
}

/// Not among the planted bugs, and as telling: everybody at once, and nothing is wrong.
#[test]
fn all_workloads_together_are_clean() {
    let parts = ["flags", "idlers", "intruder", "mailboxes", "moves", "offline"];
    for seed in 1..=2 {
        let outcome = played(seed, &parts, None);
        assert!(outcome.is_clean(), "seed {seed}: {:#?}", outcome.violations);
        for name in ["an idling client is told", "a wake-up is held against its bound"] {
            assert!(outcome.reached.contains_key(name), "seed {seed}: never: {name}");
        }
    }
}
