//! Every world that once failed is clean, and would not be with the bug that it is kept for.

use std::path::Path;

use simulation::{Plan, play};

/// The plan in a file of `seeds/`.
fn plan_in(text: &str) -> Plan {
    let mut lines = text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty());
    let plan = lines.next().expect("a plan").parse().expect("a plan that there still is");
    assert_eq!(lines.next(), None, "one plan a file");
    plan
}

#[test]
fn what_failed_once_holds() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .expect("the folder is there")
        .map(|entry| entry.expect("it can be read").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "seed"))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "bugs were found");
    for file in files {
        let plan = plan_in(&std::fs::read_to_string(&file).expect("it can be read"));
        if plan.planted.is_some() {
            assert!(!play(&plan).is_clean(), "{}: {plan} does not meet its bug", file.display());
        }
        let mended = Plan { planted: None, ..plan };
        let violations = play(&mended).violations;
        assert_eq!(violations, [], "{}: {mended}", file.display());
    }
}

#[test]
fn a_file_is_a_plan_with_remarks() {
    let text = "# P1: what happened\n\nreplay 0x07 --nodes 2 --seconds 30\n";
    assert_eq!(plan_in(text), "7 --nodes 2 --seconds 30".parse().expect("it is one"));
}
