use proptest::prelude::*;

use super::*;

fn check(text: &str, expected: Result<&str, AddressError>) {
    let parsed = Address::parse(text);
    let shown = parsed.as_ref().map(ToString::to_string).map_err(|error| *error);
    assert_eq!(shown.as_deref(), expected.as_ref().copied(), "{text:?}");
    if let Ok(address) = parsed {
        assert_eq!(Address::parse(&address.to_string()), Ok(address), "{text:?}");
    }
}

#[test]
fn addresses() {
    check("a@b", Ok("a@b"));
    check("John.Doe+x@Example.ORG", Ok("John.Doe+x@example.org"));
    check("\"john\"@example.org", Ok("john@example.org"));
    check("\"john\\.doe\"@example.org", Ok("john.doe@example.org"));
    check("\"a b\"@example.org", Ok("\"a b\"@example.org"));
    check("\"a@b\"@example.org", Ok("\"a@b\"@example.org"));
    check("\"a\\\"\\\\\"@example.org", Ok("\"a\\\"\\\\\"@example.org"));
    check("\"\"@example.org", Ok("\"\"@example.org"));
    check("\"a..b\"@example.org", Ok("\"a..b\"@example.org"));
    check("a@[192.0.2.1]", Ok("a@[192.0.2.1]"));
    check("a@[ipv6:2001:DB8::1]", Ok("a@[IPv6:2001:db8::1]"));
    check("j\u{f6}rg@B\u{dc}CHER.example", Ok("j\u{f6}rg@b\u{fc}cher.example"));
    for local in ["", ".a", "a.", "a..b", "a b", "(a)", "a,b", "\"a", "\"a\"b", "\"\u{7f}\"", "<a"]
    {
        check(&format!("{local}@b"), Err(AddressError::LocalPart));
    }
    check("a", Err(AddressError::LocalPart));
    check("\"a\\\u{e9}\"@b", Err(AddressError::LocalPart));
    check("\"a\u{85}\"@b", Err(AddressError::LocalPart));
    for domain in
        ["", ".", "b.", ".b", "b..c", "-b", "b-", "b_c", "b@c", "b c", "b>", "[]", "[1.2.3]"]
    {
        check(&format!("a@{domain}"), Err(AddressError::Domain));
    }
    for domain in ["[192.0.2.01]", "[IPv6:1]", "[IPv6:fe80::1%1]", "[x:y]", "[1.2.3.4", "[::1]"] {
        check(&format!("a@{domain}"), Err(AddressError::Domain));
    }
    check("a@b\u{3002}c", Err(AddressError::Domain));
}

#[test]
fn lengths() {
    let label = "b".repeat(LABEL_CHARS_MAX);
    let local = "a".repeat(LOCAL_PART_OCTETS_MAX);
    assert!(Address::parse(&format!("{local}@{label}")).is_ok());
    check(&format!("{local}a@b"), Err(AddressError::LocalPart));
    check(&format!("\"{}\"@b", " ".repeat(63)), Err(AddressError::LocalPart));
    check(&format!("a@{label}b"), Err(AddressError::Domain));
    let domain = format!("{label}.{label}.{label}.{}", "b".repeat(60));
    assert_eq!(domain.len(), 252);
    assert!(Address::parse(&format!("a@{domain}")).is_ok());
    check(&format!("aa@{domain}"), Err(AddressError::TooLong));
    check(&format!("a@{domain}.b.b"), Err(AddressError::Domain));
}

#[test]
fn literals_are_known() {
    let literal = |text| Domain::parse(text).expect("valid").literal();
    assert_eq!(literal("[192.0.2.1]"), Some(IpAddr::from([192, 0, 2, 1])));
    assert_eq!(literal("[IPv6:::1]"), Some(IpAddr::V6(Ipv6Addr::LOCALHOST)));
    assert_eq!(literal("192.0.2.1"), None);
}

#[test]
fn paths() {
    let reverse = |text| ReversePath::parse(text).map(|path| path.to_string());
    let forward = |text| ForwardPath::parse(text).map(|path| path.to_string());
    assert_eq!(reverse("<>").as_deref(), Ok("<>"));
    assert_eq!(reverse("<a@B>").as_deref(), Ok("<a@b>"));
    assert_eq!(reverse("<@x.example,@[192.0.2.1]:a@b>").as_deref(), Ok("<a@b>"));
    assert_eq!(forward("<postMASTER>").as_deref(), Ok("<Postmaster>"));
    assert_eq!(forward("<\"a>b\"@c>").as_deref(), Ok("<\"a>b\"@c>"));
    for text in ["", "a@b", "<a@b", "<a@b> ", "<a@b>>", "< a@b>", "<@x,y:a@b>", "<@x,a@b>", "<a>"] {
        assert!(ReversePath::parse(text).is_err(), "{text:?}");
        assert!(ForwardPath::parse(text).is_err(), "{text:?}");
    }
    assert!(reverse("<Postmaster>").is_err());
    assert!(forward("<>").is_err());
}

#[test]
fn helo_names() {
    for name in ["mx.example.org", "WIN_HOST", "[192.0.2.1]", "[IPv6:::1]", "localhost"] {
        assert_eq!(HeloName::parse(name).expect("valid").as_str(), name);
    }
    for name in ["", "a b", "a(b)", "a\r", "\u{e9}", "a;b", &"a".repeat(HELO_OCTETS_MAX + 1)] {
        assert_eq!(HeloName::parse(name), None, "{name:?}");
    }
}

proptest! {
    #[test]
    fn parsed_addresses_round_trip(text in "[a-zA-Z0-9.\"\\\\ \u{e4}\u{130}\u{3a3}\u{212a}@-]{1,12}@[a-zA-Z0-9.\u{e4}\u{130}\u{3a3}\u{212a}-]{1,8}") {
        if let Ok(address) = Address::parse(&text) {
            prop_assert_eq!(Address::parse(&address.to_string()), Ok(address));
        }
    }

    #[test]
    fn any_quotable_local_part_round_trips(local in "[ -~\u{e4}]{0,20}", domain in "[a-z0-9]{1,8}(\\.[a-z]{1,5}){0,2}") {
        let quoted: String = local.chars().flat_map(|c| match c {
            '"' | '\\' => vec!['\\', c],
            _ => vec![c],
        }).collect();
        let address = Address::parse(&format!("\"{quoted}\"@{domain}")).expect("valid");
        prop_assert_eq!(address.local(), &local);
        prop_assert_eq!(Address::parse(&address.to_string()), Ok(address));
    }

    #[test]
    fn arbitrary_text_never_panics(text in any::<String>()) {
        let _ = Address::parse(&text);
        let _ = ReversePath::parse(&text);
        let _ = ForwardPath::parse(&text);
        let _ = HeloName::parse(&text);
    }
}
