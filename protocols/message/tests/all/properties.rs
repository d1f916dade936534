//! Properties of the scanner: of any bytes, and of well-formed trees.

use std::ops::Range;

use crate::common::{assert_sound, scan, scan_in};
use message::{Content, Limits, Part};
use proptest::prelude::*;

/// Pieces that MIME framing is made of, and some that are not.
fn fragments() -> impl Strategy<Value = Vec<u8>> {
    let fragment = prop_oneof![
        4 => proptest::sample::select(&[
            "\n", "\r\n", "\r", "\n\n", "\r\n\r\n", "--a", "--a--", "--ab", "--", "-", " ", "\t",
            "Content-Type: multipart/mixed; boundary=a\n", "Content-Type: message/rfc822\n",
            "Content-Type: multipart/digest;\r\n boundary=\"ab\"\r\n", "Subject: x\n", "text",
            "Content-Type: text/html; charset=utf-16\n", "Content-Transfer-Encoding: base64\n",
            "Content-Transfer-Encoding: quoted-printable\n", "Zm9v", "=3D", "=\n", "From: a:b;\n",
            "Content-Type: multipart/x; boundary=a--\n", "<p>&amp;", "\0", "\u{e9}",
        ][..]).prop_map(|text| text.as_bytes().to_vec()),
        1 => proptest::collection::vec(any::<u8>(), 0..4),
    ];
    proptest::collection::vec(fragment, 0..40).prop_map(|fragments| fragments.concat())
}

fn tight() -> Limits {
    Limits {
        top_header_bytes_max: 60,
        nested_header_bytes_max: 30,
        part_header_bytes_max: 20,
        inner_headers_bytes_max: 100,
        depth_max: 3,
        parts_max: 5,
    }
}

/// A tree to write and to find again.
#[derive(Clone, Debug)]
enum Tree {
    Leaf(Vec<String>),
    Multipart { children: Vec<Tree>, preamble: Vec<String>, epilogue: Vec<String> },
    Message(Box<Tree>),
}

fn lines() -> impl Strategy<Value = Vec<String>> {
    proptest::collection::vec("(--|-)?[ -<>-~]{0,20}(--)?", 0..5)
}

fn tree() -> impl Strategy<Value = Tree> {
    lines().prop_map(Tree::Leaf).prop_recursive(5, 30, 4, |inner| {
        prop_oneof![
            (proptest::collection::vec(inner.clone(), 1..4), lines(), lines()).prop_map(
                |(children, preamble, epilogue)| Tree::Multipart { children, preamble, epilogue }
            ),
            inner.prop_map(|tree| Tree::Message(Box::new(tree))),
        ]
    })
}

/// What was written: ranges and the parts inside.
#[derive(Debug, PartialEq)]
struct Written {
    kind: &'static str,
    header: Range<u64>,
    body: Range<u64>,
    inside: Vec<Written>,
}

struct Writer {
    out: Vec<u8>,
    eol: &'static str,
    boundaries: usize,
}

impl Writer {
    fn line(&mut self, text: &str) {
        self.out.extend_from_slice(text.as_bytes());
        self.out.extend_from_slice(self.eol.as_bytes());
    }

    fn at(&self) -> u64 {
        self.out.len() as u64
    }

    fn write(&mut self, tree: &Tree) -> Written {
        let start = self.at();
        self.line("Subject: x");
        let (kind, body, inside) = match tree {
            Tree::Leaf(lines) => {
                self.line("Content-Type: application/x");
                self.line("");
                let body = self.at();
                self.out.extend_from_slice(lines.join(self.eol).as_bytes());
                ("leaf", body, Vec::new())
            }
            Tree::Message(tree) => {
                self.line("content-type: Message/RFC822");
                self.line("");
                let body = self.at();
                ("message", body, vec![self.write(tree)])
            }
            Tree::Multipart { children, preamble, epilogue } => {
                // Each boundary is a prefix of the later ones: "=" occurs in no line.
                self.boundaries += 1;
                let boundary = format!("={}", "x".repeat(self.boundaries));
                self.line(&format!(
                    "Content-Type: multipart/mixed;{}\tboundary=\"{boundary}\"",
                    self.eol
                ));
                self.line("");
                let body = self.at();
                for line in preamble {
                    self.line(line);
                }
                let mut inside = Vec::new();
                for child in children {
                    self.line(&format!("--{boundary}"));
                    inside.push(self.write(child));
                    self.line("");
                }
                self.out.extend_from_slice(format!("--{boundary}--").as_bytes());
                for line in epilogue {
                    self.line("");
                    self.out.extend_from_slice(line.as_bytes());
                }
                ("multipart", body, inside)
            }
        };
        Written { kind, header: start..body, body: body..self.at(), inside }
    }
}

fn found(part: &Part) -> Written {
    let (kind, inside) = match &part.content {
        Content::Leaf => ("leaf", Vec::new()),
        Content::Multipart(children) => ("multipart", children.iter().map(found).collect()),
        Content::Message(message) => ("message", vec![found(&message.root)]),
    };
    Written { kind, header: part.header.clone(), body: part.body.clone(), inside }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn any_bytes_at_any_split(
        bytes in fragments(),
        lengths in proptest::collection::vec(1usize..20, 1..5),
    ) {
        for limits in [Limits::default(), tight()] {
            let whole = scan_in(&bytes, &[usize::MAX], limits.clone());
            assert_sound(&bytes, &whole);
            prop_assert_eq!(&scan_in(&bytes, &[1], limits.clone()), &whole);
            prop_assert_eq!(&scan_in(&bytes, &lengths, limits), &whole);
        }
    }

    #[test]
    fn noise_is_a_message(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let whole = scan(&bytes);
        assert_sound(&bytes, &whole);
        prop_assert_eq!(scan_in(&bytes, &[1], Limits::default()), whole);
    }

    #[test]
    fn a_written_tree_is_found_again(
        tree in tree(),
        eol in proptest::sample::select(&["\n", "\r\n"][..]),
    ) {
        let mut writer = Writer { out: Vec::new(), eol, boundaries: 0 };
        let written = writer.write(&tree);
        let scanned = scan(&writer.out);
        assert_sound(&writer.out, &scanned);
        prop_assert_eq!(found(&scanned.structure.root), written);
    }
}
