//! Real mail: every message of the corpus scans, and the tree agrees with what `mail-parser`, an
//! independent implementation, makes of the whole message.
//!
//! Run with `--nocapture` to see the counts and where the two differ.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::{assert_sound, scan, scan_in, types};
use mail_parser::{MessageParser, MimeHeaders, PartType};
use message::Limits;

/// Messages in a hundred whose part types may differ from `mail-parser`'s: the two treat broken
/// MIME differently (missing boundaries, text that calls itself multipart).
const DIFFERENT_PERCENT_MAX: usize = 1;

fn files(dir: &Path, out: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("readable folder") {
        let path = entry.expect("readable entry").path();
        if path.is_dir() {
            files(&path, out);
        } else {
            out.push(path);
        }
    }
}

/// `kind/subtype` of the parts as `mail-parser` sees them, depth first.
fn theirs(message: &mail_parser::Message<'_>, id: u32, out: &mut Vec<String>) {
    let Some(part) = message.part(id) else { return };
    let declared = part.content_type().map(|found| {
        format!("{}/{}", found.ctype(), found.subtype().unwrap_or_default()).to_ascii_lowercase()
    });
    match &part.body {
        PartType::Multipart(children) => {
            out.push(declared.unwrap_or_default());
            for &child in children {
                theirs(message, child, out);
            }
        }
        PartType::Message(nested) => {
            out.push("message/rfc822".to_owned());
            theirs(nested, 0, out);
        }
        _ => out.push(declared.unwrap_or_else(|| "text/plain".to_owned())),
    }
}

/// Writes past the test runner's capture, so that it is seen where the test passes.
fn tell(text: &str) {
    let _told = writeln!(std::io::stderr(), "{text}");
}

#[test]
fn corpus() {
    let archive =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/corpus/spamassassin.tar.xz");
    if !archive.exists() {
        tell(&format!("skipped: no corpus at {}", archive.display()));
        return;
    }
    let dir = tempfile::tempdir().expect("a temporary folder");
    let status = Command::new("tar").arg("xJf").arg(&archive).arg("-C").arg(dir.path()).status();
    if !status.is_ok_and(|status| status.success()) {
        tell("skipped: tar cannot unpack the corpus (no xz?)");
        return;
    }
    let mut paths = Vec::new();
    files(dir.path(), &mut paths);
    paths.sort();
    assert!(paths.len() > 6_000, "{}", paths.len());

    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let mut differences: BTreeMap<String, Vec<&PathBuf>> = BTreeMap::new();
    for path in &paths {
        let bytes = fs::read(path).expect("readable file");
        let scanned = scan(&bytes);
        let parts = assert_sound(&bytes, &scanned);
        assert_eq!(scan_in(&bytes, &[1, 7, 4096], Limits::default()), scanned, "{path:?}");
        let mut count = |name, by: usize| *counts.entry(name).or_default() += by;
        count("messages", 1);
        count("parts", parts);
        count("with attachment", usize::from(scanned.has_attachment));
        count("without preview", usize::from(scanned.preview.is_empty()));
        count("without date", usize::from(scanned.sent_at.is_none()));
        count("without message id", usize::from(scanned.threading.message_id.is_none()));
        count("with references", usize::from(!scanned.threading.references.is_empty()));

        let mut their_types = Vec::new();
        let parsed = MessageParser::default().parse(&bytes).expect("mail-parser takes it");
        theirs(&parsed, 0, &mut their_types);
        let our_types = types(&scanned.structure.root);
        if our_types != their_types {
            differences.entry(format!("{our_types:?} != {their_types:?}")).or_default().push(path);
        }
    }
    tell(&format!("corpus: {counts:?}"));
    let mut sorted: Vec<_> = differences.iter().collect();
    sorted.sort_by_key(|(_, paths)| std::cmp::Reverse(paths.len()));
    for (difference, paths) in sorted.iter().take(40) {
        println!("{} times {difference}\n  as in {}", paths.len(), paths[0].display());
    }
    let different: usize = differences.values().map(Vec::len).sum();
    tell(&format!("corpus: {different} of {} trees differ from mail-parser's", paths.len()));
    assert!(different * 100 <= paths.len() * DIFFERENT_PERCENT_MAX, "{different} differ");
    assert!(counts["without preview"] * 100 < paths.len(), "{counts:?}");
    assert!(counts["without date"] * 100 < paths.len(), "{counts:?}");
}
