use proptest::prelude::*;

use super::*;

/// Decodes `input` cut at `cuts`, until its end: content, whether it was whole, octets used.
fn decode(input: &[u8], cuts: &[usize]) -> Option<(Vec<u8>, bool, usize)> {
    let mut dots = Dots::default();
    let mut kept = BytesMut::new();
    let (mut whole, mut used) = (true, 0);
    for end in cuts.iter().copied().chain([input.len()]) {
        while used < end {
            let (step, stop) = dots.decode(&input[used..end], Sink::Keep(&mut kept));
            used += step;
            match stop {
                Stop::Starved => assert_eq!(used, end),
                Stop::BareLineEnding => whole = false,
                Stop::End => return Some((kept.to_vec(), whole, used)),
            }
        }
    }
    None
}

fn check(input: &str, expected: Option<(&str, bool)>) {
    let input = input.as_bytes();
    for cut in 0..=input.len() {
        let decoded = decode(input, &[cut]);
        let bytewise = decode(input, &(0..input.len()).collect::<Vec<_>>());
        assert_eq!(
            decoded.as_ref().map(|(_, whole, used)| (*whole, *used)),
            bytewise.as_ref().map(|(_, whole, used)| (*whole, *used))
        );
        match (decoded, expected) {
            (None, None) => {}
            (Some((content, true, used)), Some((text, true))) => {
                assert_eq!((content.as_slice(), used), (text.as_bytes(), input.len()), "{input:?}");
            }
            (Some((_, false, used)), Some((_, false))) => assert_eq!(used, input.len()),
            (decoded, expected) => panic!("{input:?} at {cut}: {decoded:?}, not {expected:?}"),
        }
    }
}

#[test]
fn content() {
    check(".\r\n", Some(("", true)));
    check("a\r\n.\r\n", Some(("a\r\n", true)));
    check("\r\n\r\n.\r\n", Some(("\r\n\r\n", true)));
    check("..\r\n.\r\n", Some((".\r\n", true)));
    check("a\r\n..b\r\nc.\r\n.d\r\n.\r\n", Some(("a\r\n.b\r\nc.\r\nd\r\n", true)));
    check("a.\r\n", None);
    check("a\r\n.", None);
    check("a\r\n.\r", None);
}

#[test]
fn look_alikes_are_no_end() {
    for end in
        ["\n.\n", "\n.\r\n", "\r.\r", "\r.\r\n", "\r\n.\n", "\r\n.\r", "\r\r\n.\n", "\n\n.\n"]
    {
        check(&format!("a{end}b"), None);
        check(&format!("a{end}b\r\n.\r\n"), Some(("", false)));
    }
    check("a\r\r\n.\r\n", Some(("", false)));
    check("\n.\r\nb\r\n.\r\n", Some(("", false)));
    check(".\nb\r\n.\r\n", Some(("", false)));
    check(".\rb\r\n.\r\n", Some(("", false)));
    check(".\r\r\n.\r\n", Some(("", false)));
}

#[test]
fn line_endings() {
    let check = |input: &str, whole: bool| {
        for cut in 0..=input.len() {
            let mut endings = LineEndings::default();
            let (head, tail) = input.as_bytes().split_at(cut);
            let seen = endings.are_whole(head) && endings.are_whole(tail) && endings.may_end();
            assert_eq!(seen, whole, "{input:?} at {cut}");
        }
    };
    for whole in ["", "a", "\r\n", "a\r\n\r\nb"] {
        check(whole, true);
    }
    for broken in ["\r", "\n", "a\rb", "a\nb", "\r\r\n", "\r\n\n", "a\r\n\r"] {
        check(broken, false);
    }
}

fn stuff(content: &[u8]) -> Vec<u8> {
    let mut stuffed = Vec::new();
    let mut line_start = true;
    for &octet in content {
        if line_start && octet == b'.' {
            stuffed.push(b'.');
        }
        line_start = octet == b'\n';
        stuffed.push(octet);
    }
    stuffed.extend_from_slice(b".\r\n");
    stuffed
}

proptest! {
    #[test]
    fn stuffed_content_comes_back(
        lines in prop::collection::vec("[.a]{0,4}", 0..12),
        cuts in prop::collection::vec(0usize..64, 0..4),
    ) {
        let content: Vec<u8> = lines.iter().flat_map(|line| format!("{line}\r\n").into_bytes()).collect();
        let stuffed = stuff(&content);
        let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(stuffed.len())).collect();
        cuts.sort_unstable();
        let length = stuffed.len();
        prop_assert_eq!(decode(&stuffed, &cuts), Some((content, true, length)));
    }

    /// Against a plain search for the first CRLF.CRLF.
    #[test]
    fn the_end_is_the_first_genuine_one(input in "[.a\r\n]{0,24}", cut in 0usize..24) {
        let searched = format!("\r\n{input}");
        let end = searched.find("\r\n.\r\n").map(|index| index + 3);
        let cut = cut.min(input.len());
        let decoded = decode(input.as_bytes(), &[cut]);
        prop_assert_eq!(decoded.as_ref().map(|(_, _, used)| *used), end);
        if let Some((_, whole, used)) = decoded {
            let mut endings = LineEndings::default();
            prop_assert_eq!(whole, endings.are_whole(&input.as_bytes()[..used]));
        }
    }
}

/// Encodes content cut as `sizes` say, with its end.
fn encode(content: &[u8], sizes: &[usize]) -> Vec<u8> {
    let (mut stuffing, mut stuffed, mut rest) = (Stuffing::default(), Vec::new(), content);
    for &size in sizes.iter().cycle() {
        let (piece, after) = rest.split_at(size.min(rest.len()));
        stuffed.extend_from_slice(&stuffing.encode(Bytes::copy_from_slice(piece)));
        rest = after;
        if rest.is_empty() {
            break;
        }
    }
    stuffed.extend_from_slice(&stuffing.end());
    stuffed
}

#[test]
fn a_piece_without_dots_to_double_is_not_copied() {
    let piece = Bytes::from_static(b"a.b\r\nc.\r\n");
    assert_eq!(Stuffing::default().encode(piece.clone()).as_ptr(), piece.as_ptr());
}

proptest! {
    #[test]
    fn what_is_stuffed_is_unstuffed(
        lines in prop::collection::vec("[.a]{0,3}", 0..20),
        sizes in prop::collection::vec(1usize..9, 1..4),
    ) {
        let content: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
        let stuffed = encode(content.as_bytes(), &sizes);
        let decoded = decode(&stuffed, &[]);
        prop_assert_eq!(decoded, Some((content.into_bytes(), true, stuffed.len())));
    }

    /// Any octets: there is one end, at the end, however the pieces are cut, also for a server
    /// that takes a bare CR or LF for a line's end.
    #[test]
    fn no_content_ends_early(
        content in "[.a\r\n]{0,20}",
        sizes in prop::collection::vec(1usize..5, 1..4),
    ) {
        let stuffed = encode(content.as_bytes(), &sizes);
        prop_assert_eq!(&stuffed, &encode(content.as_bytes(), &[100]));
        let end = decode(&stuffed, &[]).map(|(_, _, used)| used);
        prop_assert_eq!(end, Some(stuffed.len()));
        let text = std::str::from_utf8(&stuffed).expect("ASCII");
        let before = text.strip_suffix(".\r\n").expect("an end");
        prop_assert!(before.split(['\r', '\n']).all(|line| line != "."));
    }
}
