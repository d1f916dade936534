//! Answers of a server that has the key, and of others.

use hickory_net::proto::{
    op::OpCode,
    rr::{DNSClass, RecordType, TSigResponseContext, rdata::tsig::TSIG},
};

use super::*;

const SECRET: &[u8] = b"a secret of thirty-two bytes....";
const ZONE: &str = "example.org";
const NAME: &str = "s._domainkey.example.org";
const TEXT: &[u8] = &[b'x'; 300];

fn signer(name: &str, secret: &[u8]) -> TSigner {
    let name = name::parse(name).unwrap();
    TSigner::new(secret.to_vec(), TsigAlgorithm::HmacSha256, name, FUDGE_SECONDS).unwrap()
}

/// What a server got.
struct Request {
    message: Message,
    bytes: Vec<u8>,
}

impl Request {
    fn tsig(&self) -> &TSIG {
        &self.message.signature().unwrap().data
    }

    /// An answer that nobody has signed.
    fn answer(&self, code: ResponseCode) -> Message {
        let mut answer = Message::error_msg(self.message.id, OpCode::Update, code);
        answer.add_queries(self.message.queries.clone());
        answer
    }

    /// Signs an answer as if to a request with that MAC, so much later than it was asked.
    fn signed(&self, mut answer: Message, by: TSigner, mac: &[u8], later: i64) -> Vec<u8> {
        let time = self.tsig().time.checked_add_signed(later).unwrap();
        let context = TSigResponseContext::new(answer.id, time, by, mac.to_vec(), None);
        let signature = context.sign(&answer.to_vec().unwrap()).unwrap();
        answer.set_signature(signature);
        answer.to_vec().unwrap()
    }

    /// Signs an answer as the server does.
    fn right(&self, answer: Message) -> Vec<u8> {
        self.signed(answer, signer("key", SECRET), &self.tsig().mac, 0)
    }
}

/// Asks a server for a change; it answers with these bytes, or hangs up without any.
async fn ask(answer: impl FnOnce(&Request) -> Option<Vec<u8>>) -> Result<(), UpdateError> {
    let env = Env::system();
    let listener = env.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let server = listener.local_address().unwrap();
    let updater = Updater::new(&env, server, "key", SECRET.to_vec()).unwrap();
    let serving = async {
        let mut stream = listener.accept().await.unwrap().stream;
        let length = stream.read_u16().await.unwrap();
        let mut bytes = vec![0; usize::from(length)];
        stream.read_exact(&mut bytes).await.unwrap();
        let message = Message::from_vec(&bytes).unwrap();
        if let Some(answer) = answer(&Request { message, bytes }) {
            stream.write_u16(u16::try_from(answer.len()).unwrap()).await.unwrap();
            stream.write_all(&answer).await.unwrap();
        }
    };
    let asking = updater.add_txt(ZONE, NAME, Duration::from_mins(5), TEXT);
    tokio::join!(asking, serving).0
}

#[tokio::test]
async fn what_is_asked_for_is_signed_and_a_signed_answer_counts() {
    let asked = ask(|request| {
        let message = &request.message;
        assert_eq!(message.op_code, OpCode::Update);
        let zone = &message.queries[0];
        assert_eq!(
            (zone.name().to_string().as_str(), zone.query_type()),
            ("example.org.", RecordType::SOA)
        );
        let [record] = &message.authorities[..] else { panic!("{message:?}") };
        assert_eq!((record.name.to_string(), record.ttl), (format!("{NAME}."), 300));
        assert_eq!(record.dns_class, DNSClass::IN);
        let RData::TXT(text) = &record.data else { panic!("{record:?}") };
        let strings: Vec<usize> = text.txt_data.iter().map(|string| string.len()).collect();
        assert_eq!(strings, [255, 45]);
        let verified = signer("key", SECRET).verify_message_byte(&request.bytes, None, true);
        assert!(verified.is_ok(), "{verified:?}");
        let other = signer("key", b"another").verify_message_byte(&request.bytes, None, true);
        assert!(other.is_err());
        Some(request.right(request.answer(ResponseCode::NoError)))
    });
    assert_eq!(asked.await, Ok(()));
}

#[tokio::test]
async fn an_answer_that_the_key_has_not_signed_is_none() {
    type Answer = fn(&Request) -> Vec<u8>;
    let answers: [(&str, Answer); 9] = [
        ("unsigned", |it| it.answer(ResponseCode::NoError).to_vec().unwrap()),
        ("signed with another secret", |it| {
            let answer = it.answer(ResponseCode::NoError);
            it.signed(answer, signer("key", b"another"), &it.tsig().mac, 0)
        }),
        ("signed with another key", |it| {
            let answer = it.answer(ResponseCode::NoError);
            it.signed(answer, signer("other", SECRET), &it.tsig().mac, 0)
        }),
        ("signed for another request", |it| {
            it.signed(it.answer(ResponseCode::NoError), signer("key", SECRET), &[7; 32], 0)
        }),
        ("signed long before", |it| {
            let (answer, mac) = (it.answer(ResponseCode::NoError), &it.tsig().mac);
            it.signed(answer, signer("key", SECRET), mac, -i64::from(FUDGE_SECONDS) - 1)
        }),
        ("signed long after", |it| {
            let (answer, mac) = (it.answer(ResponseCode::NoError), &it.tsig().mac);
            it.signed(answer, signer("key", SECRET), mac, i64::from(FUDGE_SECONDS) + 1)
        }),
        ("a signature without its bytes", |it| {
            let mut answer = it.answer(ResponseCode::NoError);
            let by = signer("key", SECRET);
            let context = TSigResponseContext::bad_signature(answer.id, it.tsig().time, by);
            let signature = context.sign(&answer.to_vec().unwrap()).unwrap();
            answer.set_signature(signature);
            answer.to_vec().unwrap()
        }),
        ("a refusal that was turned around", |it| {
            let mut bytes = it.right(it.answer(ResponseCode::Refused));
            bytes[3] &= 0xf0;
            bytes
        }),
        ("the request itself", |it| it.bytes.clone()),
    ];
    for (what, answer) in answers {
        assert_eq!(ask(|it| Some(answer(it))).await, Err(UpdateError::Garbled), "{what}");
    }
}

#[tokio::test]
async fn an_answer_counts_whole_and_unchanged() {
    let mut lengths = (0, 0);
    let asked = ask(|it| {
        let answer = it.answer(ResponseCode::NoError);
        lengths.0 = answer.to_vec().unwrap().len();
        let signed = it.right(answer);
        lengths.1 = signed.len();
        Some(signed)
    });
    assert_eq!(asked.await, Ok(()));
    let (unsigned, signed) = lengths;
    let right = |it: &Request| it.right(it.answer(ResponseCode::NoError));
    // RFC 1035 §4.1.1: one bit has no meaning, and Hickory leaves it out of what it checks.
    let meaningless = 3 * 8 + 6;
    for bit in (0..unsigned * 8).filter(|bit| *bit != meaningless) {
        let asked = ask(|it| {
            let mut bytes = right(it);
            bytes[bit / 8] ^= 1 << (bit % 8);
            Some(bytes)
        });
        assert!(asked.await.is_err(), "bit {bit}");
    }
    for cut in 0..signed {
        let asked = ask(|it| Some(right(it)[..cut].to_vec()));
        assert!(asked.await.is_err(), "cut at {cut}");
    }
}

#[tokio::test]
async fn a_refusal_is_told_whoever_says_so() {
    for code in [ResponseCode::Refused, ResponseCode::NotAuth, ResponseCode::ServFail] {
        let expected = Err(UpdateError::Refused(code.to_string()));
        assert_eq!(ask(|it| Some(it.right(it.answer(code)))).await, expected);
        assert_eq!(ask(|it| Some(it.answer(code).to_vec().unwrap())).await, expected);
    }
    let gone = ask(|_| None).await;
    assert!(matches!(gone, Err(UpdateError::Unreachable(_))), "{gone:?}");
}

#[tokio::test]
async fn nothing_is_sent_that_is_not_of_the_zone() {
    let env = Env::system();
    // Nobody listens there: a connection would be another error.
    let nowhere = "127.0.0.1:1".parse().unwrap();
    let updater = Updater::new(&env, nowhere, "key", SECRET.to_vec()).unwrap();
    let long = vec![b'x'; TEXT_BYTES_MAX + 1];
    for (zone, name, text) in [
        (ZONE, "s.example.com", TEXT),
        (ZONE, "notexample.org", TEXT),
        (ZONE, "", TEXT),
        (ZONE, NAME, b""),
        (ZONE, NAME, &long),
        ("exa mple..org", NAME, TEXT),
    ] {
        let added = updater.add_txt(zone, name, Duration::ZERO, text).await;
        assert_eq!(added, Err(UpdateError::NotInZone), "{zone} {name}");
        let removed = updater.remove_txt(zone, name, text).await;
        assert_eq!(removed, Err(UpdateError::NotInZone), "{zone} {name}");
    }
    for (name, secret) in [("key", &b""[..]), ("k..", SECRET)] {
        let made = Updater::new(&env, nowhere, name, secret.to_vec());
        assert_eq!(made.err(), Some(UpdateError::BadKey), "{name}");
    }
}
