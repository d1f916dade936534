//! The examples of RFC 6376 (appendix A) and RFC 8463 (appendix A).

use dns::{Resolver, Zone};
use env::Env;
use origin::{Digester, DkimError, DkimResult, Judge, Purpose, SpfVerdict, Verdicts};

const MESSAGE: &str = "From: Joe SixPack <joe@football.example.com>\r\n\
    To: Suzie Q <suzie@shopping.example.net>\r\n\
    Subject: Is dinner ready?\r\n\
    Date: Fri, 11 Jul 2003 21:00:37 -0700 (PDT)\r\n\
    Message-ID: <20030712040037.46341.5F8J@football.example.com>\r\n\
    \r\n\
    Hi.\r\n\
    \r\n\
    We lost the game.  Are you hungry yet?\r\n\
    \r\n\
    Joe.\r\n";

const ED25519: &str = "DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/relaxed;\r\n \
    d=football.example.com; i=@football.example.com;\r\n \
    q=dns/txt; s=brisbane; t=1528637909; h=from : to :\r\n \
    subject : date : message-id : from : subject : date;\r\n \
    bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;\r\n \
    b=/gCrinpcQOoIfuHNQIbq4pgh9kyIK3AQUdt9OdqQehSwhEIug4D11Bus\r\n \
    Fa3bT3FY5OsU7ZbnKELq+eXdp1Q1Dw==\r\n";

const RSA: &str = "DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed;\r\n \
    d=football.example.com; i=@football.example.com;\r\n \
    q=dns/txt; s=test; t=1528637909; h=from : to : subject :\r\n \
    date : message-id : from : subject : date;\r\n \
    bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;\r\n \
    b=F45dVWDfMbQDGHJFlXUNB2HKfbCeLRyhDXgFpEL8GwpsRe0IeIixNTe3\r\n \
    DhCVlUrSjV4BwcVcOF6+FF3Zo9Rpo1tFOeS9mPYQTnGdaSGsgeefOsk2Jz\r\n \
    dA+L10TeYt9BgDfQNZtKdN1WO//KgIqXP7OdEFE4LjFYNcUxZQ4FADY+8=\r\n";

const RFC_6376: &str = "DKIM-Signature: v=1; a=rsa-sha256; s=brisbane; d=example.com;\r\n      \
    c=simple/simple; q=dns/txt; i=joe@football.example.com;\r\n      \
    h=Received : From : To : Subject : Date : Message-ID;\r\n      \
    bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;\r\n      \
    b=AuUoFEfDxTDkHlLXSZEpZj79LICEps6eda7W3deTVFOk4yAUoqOB\r\n      \
    4nujc7YopdG5dWLSdNg6xNAZpOPr+kHxt1IrE+NahM6L/LbvaHut\r\n      \
    KVdkLLkpVaVVQPzeRDI009SO2Il5Lu7rDNH6mZckBdrIx0orEtZV\r\n      \
    4bmp/YzhwvcubU4=;\r\n\
    Received: from client1.football.example.com  [192.0.2.1]\r\n      \
    by submitserver.example.com with SUBMISSION;\r\n      \
    Fri, 11 Jul 2003 21:01:54 -0700 (PDT)\r\n";

fn zone() -> Zone {
    let zone = Zone::new();
    zone.txt(
        "brisbane._domainkey.football.example.com",
        "v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=",
    )
    .txt(
        "test._domainkey.football.example.com",
        "v=DKIM1; k=rsa; p=MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDkHlOQoBTzWRiGs5V6NpP3id\
         Y6Wk08a5qhdR6wy5bdOKb2jLQiY/J16JYi0Qvx/byYzCNb3W91y3FutACDfzwQ/BC/e/8uBsCR+yz1Lx\
         j+PL6lHvqMKrM3rG4hstT5QjvHO9PzoxZyVYLzBfO2EeC3Ip3G+2kryOTIKT+l/K4w3QIDAQAB",
    )
    .txt(
        "brisbane._domainkey.example.com",
        "v=DKIM1; p=MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDwIRP/UC3SBsEmGqZ9ZJW3/DkM\
         oGeLnQg1fWn7/zYtIxN2SnFCjxOCKG9v3b4jYfcTNh5ijSsq631uBItLa7od+v/RtdC2UzJ1lWT947qR+Rcac2gb\
         to/NMqJ0fzfVjH4OuKhitdY9tf6mcwGjaNBcWToIMmPSPDdQPNUYckcQ2QIDAQAB",
    );
    zone
}

async fn judge(message: &str) -> Verdicts {
    let judge = Judge::new(&Env::system(), Resolver::fixed(zone()), "mx.example.net");
    let digest = Digester::whole(Purpose::Judge, message.as_bytes());
    judge.judge_message(&SpfVerdict::default(), &digest).await
}

#[tokio::test]
async fn the_example_of_rfc_8463_verifies() {
    let found = judge(&[ED25519, RSA, MESSAGE].concat()).await.dkim;
    let results: Vec<_> = found.iter().map(|it| (it.result, it.selector.as_str())).collect();
    assert_eq!(results, [(DkimResult::Pass, "brisbane"), (DkimResult::Pass, "test")]);
    assert_eq!(found[0].domain, "football.example.com");
}

#[tokio::test]
async fn what_was_changed_since_is_noticed() {
    let message = [ED25519, RSA, MESSAGE].concat();
    for (from, to, reason) in [
        ("We lost", "We won", DkimError::BodyChanged),
        ("Is dinner", "Was dinner", DkimError::BadSignature),
        (
            "joe@football.example.com>\r\nTo",
            "eve@football.example.com>\r\nTo",
            DkimError::BadSignature,
        ),
        ("Subject: Is", "Subject: Added\r\nSubject: Is", DkimError::BadSignature),
        ("\r\nTo: Suzie", "\r\nFrom: Eve <eve@example.org>\r\nTo: Suzie", DkimError::BadSignature),
    ] {
        let changed = message.replacen(from, to, 1);
        assert_ne!(changed, message);
        for found in judge(&changed).await.dkim {
            assert_eq!((found.result, found.reason), (DkimResult::Fail, Some(reason)), "{to:?}");
        }
    }
    // What relaxed canonicalization lets pass.
    let folded = message.replace("Subject: Is dinner", "SUBJECT:  Is\r\n\tdinner");
    let folded = folded.replace("Joe.\r\n", "Joe. \t\r\n\r\n\r\n");
    assert!(judge(&folded).await.dkim.iter().all(|it| it.result == DkimResult::Pass));
}

/// As erratum 4926 has it: six blanks where lines are folded, and the body with one where the RFC's
/// lines are justified.
#[tokio::test]
async fn the_example_of_rfc_6376_verifies() {
    let found = judge(&[RFC_6376, MESSAGE].concat().replace("game.  Are", "game. Are")).await.dkim;
    assert_eq!((found[0].result, found[0].reason), (DkimResult::Pass, None));
}
