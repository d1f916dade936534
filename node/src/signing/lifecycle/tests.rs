//! The lifecycle played with times and answers of the tests' own.

use super::*;

const HOUR: i64 = 3_600;
const DAY: i64 = 24 * HOUR;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_unix_seconds(1_700_000_000 + seconds)
}

fn policy(publisher: Publisher) -> Policy {
    Policy {
        algorithms: vec![Algorithm::Ed25519],
        rotate: Some(Duration::from_hours(24 * 90)),
        settle: Duration::from_mins(10),
        retire: Duration::from_hours(24 * 14),
        publisher,
    }
}

/// Plays a domain's turns as they come due.
struct Play {
    keys: Vec<Key>,
    policy: Policy,
    /// What DNS has.
    zone: Vec<u64>,
    /// Whether the name server takes updates.
    server: Result<(), String>,
    done: Vec<Step>,
}

impl Play {
    fn new(policy: Policy) -> Self {
        Self { keys: Vec::new(), policy, zone: Vec::new(), server: Ok(()), done: Vec::new() }
    }

    /// One turn; tells when the next is due.
    fn turn(&mut self, now: Timestamp) -> Timestamp {
        let mut done = Vec::new();
        while let Some(step) = next_step(&self.keys, &self.policy, now, &done) {
            self.take(step, now);
            done.push(step);
            assert!(done.len() < 64, "it does not end: {done:?}");
        }
        self.done.extend(done);
        next_turn(&self.keys, &self.policy, now)
    }

    fn take(&mut self, step: Step, now: Timestamp) {
        let place = |number| self.keys.iter().position(|key| key.number == number).unwrap();
        match step {
            Step::Make(algorithm) => {
                let number = self.keys.iter().map(|key| key.number).max().unwrap_or(0) + 1;
                let secret = zeroize::Zeroizing::new(vec![1]);
                let text = format!("v=DKIM1; k=ed25519; p={number}");
                let selector = format!("s{number}");
                self.keys.push(Key::new(number, selector, algorithm, secret, text, now));
            }
            Step::Publish(number) => {
                let place = place(number);
                if self.server.is_ok() {
                    self.zone.push(number);
                }
                published(&mut self.keys[place], self.server.clone(), now);
            }
            Step::Look(number) => {
                let place = place(number);
                let has = self.zone.contains(&number);
                looked(&mut self.keys[place], if has { Found::There } else { Found::Missing }, now);
            }
            Step::Use(number) => put_to_use(&mut self.keys, number, now),
            Step::Retire(number) => {
                let place = place(number);
                retire(&mut self.keys[place], now);
            }
            Step::Withdraw(number) => {
                let place = place(number);
                if self.server.is_ok() {
                    self.zone.retain(|it| *it != number);
                }
                withdrawn(&mut self.keys[place], self.server.clone());
            }
            Step::Remove(number) => self.keys.retain(|key| key.number != number),
        }
    }

    /// Turns from one time until another.
    fn until(&mut self, mut now: Timestamp, end: Timestamp) {
        while now < end {
            let next = self.turn(now);
            assert!(next > now, "it stands still");
            now = next;
        }
    }

    fn states(&self) -> Vec<(u64, State)> {
        self.keys.iter().map(|key| (key.number, key.state)).collect()
    }
}

#[test]
fn a_servers_key_comes_signs_and_goes_without_hands() {
    let mut play = Play::new(policy(Publisher::Server));
    play.turn(at(0));
    assert_eq!(play.states(), [(1, State::Seen)]);
    play.turn(at(599));
    assert_eq!(play.states(), [(1, State::Seen)], "it is to settle first");
    play.turn(at(600));
    assert_eq!(play.states(), [(1, State::InUse)]);
    play.until(at(601), at(600 + 90 * DAY));
    assert_eq!(play.states(), [(1, State::InUse)]);
    play.until(at(600 + 90 * DAY), at(1_300 + 90 * DAY));
    assert_eq!(play.states(), [(1, State::Retired), (2, State::InUse)]);
    assert!(play.keys[0].pkcs8.is_empty() && !play.keys[1].pkcs8.is_empty());
    assert_eq!(play.zone, [1, 2], "what it has signed is still verified");
    play.until(at(1_300 + 90 * DAY), at(1_300 + 103 * DAY));
    assert_eq!(play.zone, [1, 2]);
    play.until(at(1_300 + 103 * DAY), at(1_300 + 105 * DAY));
    assert_eq!((play.states(), play.zone), (vec![(2, State::InUse)], vec![2]));
}

#[test]
fn the_old_key_signs_for_as_long_as_dns_does_not_show_the_new_one() {
    let mut play = Play::new(policy(Publisher::Server));
    play.until(at(0), at(DAY));
    assert_eq!(play.states(), [(1, State::InUse)]);
    play.server = Err("REFUSED".to_owned());
    play.until(at(DAY), at(200 * DAY));
    assert_eq!(play.states(), [(1, State::InUse), (2, State::Wanted)]);
    assert_eq!(play.keys[1].trouble, "REFUSED");
    let asked = play.done.iter().filter(|step| **step == Step::Publish(2)).count();
    assert!((1_000..4_000).contains(&asked), "{asked} times in 110 days");
    play.server = Ok(());
    play.until(at(200 * DAY), at(201 * DAY));
    assert_eq!(play.states(), [(1, State::Retired), (2, State::InUse)]);
    assert_eq!(play.keys[1].trouble, "");
}

#[test]
fn a_record_that_goes_again_before_it_has_settled_does_not_count() {
    let mut play = Play::new(policy(Publisher::Person));
    play.turn(at(0));
    assert_eq!(play.states(), [(1, State::Wanted)]);
    play.zone = vec![1];
    play.turn(at(100));
    assert_eq!(play.states(), [(1, State::Seen)]);
    play.zone.clear();
    play.turn(at(700));
    assert_eq!(play.states(), [(1, State::Wanted)]);
    play.zone = vec![1];
    play.until(at(701), at(DAY));
    assert_eq!(play.states(), [(1, State::InUse)]);
}

#[test]
fn a_lookup_that_fails_says_nothing() {
    let mut play = Play::new(policy(Publisher::Person));
    play.zone = vec![1];
    play.turn(at(0));
    let key = &mut play.keys[0];
    assert_eq!(key.state, State::Seen);
    looked(key, Found::Unasked, at(700));
    assert_eq!((key.state, key.found), (State::Seen, Found::There));
    let steps = due(&play.keys[0], &play.keys, &play.policy, at(700));
    assert!(!steps.contains(&Step::Use(1)), "{steps:?}");
}

#[test]
fn a_person_is_shown_what_to_remove_until_it_is_removed() {
    let mut play = Play::new(Policy { rotate: None, ..policy(Publisher::Person) });
    play.zone = vec![1, 2];
    play.until(at(0), at(DAY));
    play.until(at(DAY), at(400 * DAY));
    assert_eq!(play.states(), [(1, State::InUse)], "nobody asked for another");
    play.take(Step::Make(Algorithm::Ed25519), at(400 * DAY));
    play.until(at(400 * DAY), at(500 * DAY));
    assert_eq!(play.states(), [(1, State::Retired), (2, State::InUse)]);
    play.zone = vec![2];
    play.until(at(500 * DAY), at(502 * DAY));
    assert_eq!(play.states(), [(2, State::InUse)]);
    assert!(!play.done.iter().any(|step| matches!(step, Step::Publish(_) | Step::Withdraw(_))));
}

#[test]
fn a_domain_whose_records_stay_gets_no_more_keys_than_are_read() {
    let most = u64::try_from(DKIM_KEYS_PER_DOMAIN_MAX).unwrap();
    let mut play = Play::new(policy(Publisher::Person));
    play.zone = (1..=4 * most).collect();
    let late = 2 * i64::try_from(most).unwrap() * 91 * DAY;
    play.until(at(0), at(late));
    let made = play.done.iter().filter(|step| matches!(step, Step::Make(_))).count();
    assert_eq!((made, play.keys.len()), (DKIM_KEYS_PER_DOMAIN_MAX, DKIM_KEYS_PER_DOMAIN_MAX));
    assert_eq!(play.states().last(), Some(&(most, State::InUse)), "the newest signs on");
    play.zone = vec![most, most + 1];
    play.until(at(late), at(late + 3 * DAY));
    assert_eq!(play.states(), [(most, State::Retired), (most + 1, State::InUse)]);
}

#[test]
fn a_kind_that_is_not_wanted_any_more_retires() {
    let mut play = Play::new(policy(Publisher::Server));
    play.until(at(0), at(DAY));
    play.policy.algorithms = vec![Algorithm::Rsa];
    play.until(at(DAY), at(2 * DAY));
    let kinds: Vec<_> = play.keys.iter().map(|key| (key.algorithm, key.state)).collect();
    assert_eq!(kinds, [(Algorithm::Ed25519, State::Retired), (Algorithm::Rsa, State::InUse)]);
}

#[test]
fn a_kind_that_is_not_wanted_any_more_signs_until_another_does() {
    let mut play = Play::new(policy(Publisher::Person));
    play.zone = vec![1];
    play.until(at(0), at(DAY));
    assert_eq!(play.states(), [(1, State::InUse)]);
    play.policy.algorithms = vec![Algorithm::Rsa];
    play.until(at(DAY), at(100 * DAY));
    assert_eq!(play.states(), [(1, State::InUse), (2, State::Wanted)], "nobody published it");
    assert!(!play.keys[0].pkcs8.is_empty());
    play.zone = vec![1, 2];
    play.until(at(100 * DAY), at(101 * DAY));
    assert_eq!(play.states(), [(1, State::Retired), (2, State::InUse)]);
    // Whoever wants no signatures gets none, at once.
    play.policy.algorithms.clear();
    play.turn(at(101 * DAY));
    assert_eq!(play.states(), [(1, State::Retired), (2, State::Retired)]);
}

#[test]
fn a_servers_record_that_is_gone_is_published_again() {
    let mut play = Play::new(Policy { rotate: None, ..policy(Publisher::Server) });
    play.until(at(0), at(DAY));
    assert_eq!(play.states(), [(1, State::InUse)]);
    play.zone.clear();
    play.until(at(DAY), at(3 * DAY));
    assert_eq!((play.states(), play.zone), (vec![(1, State::InUse)], vec![1]));
    let published = play.done.iter().filter(|step| **step == Step::Publish(1)).count();
    assert_eq!(published, 2, "once more, and not at every look");
    // A record that has just been published may take its time to be seen.
    let mut key = play.keys.remove(0);
    (key.state, key.published) = (State::Wanted, Some(at(4 * DAY)));
    looked(&mut key, Found::Missing, at(4 * DAY + 60));
    assert!(key.published.is_some());
}

#[test]
fn a_record_is_found_by_its_public_half() {
    let now = at(0);
    let text = "v=DKIM1; k=ed25519; p=AbC=".to_owned();
    let secret = zeroize::Zeroizing::new(Vec::new());
    let key = Key::new(1, "s".to_owned(), Algorithm::Ed25519, secret, text, now);
    let found = |texts: &[&str]| {
        let texts: Vec<Vec<u8>> = texts.iter().map(|text| text.as_bytes().to_vec()).collect();
        found_in(&key, &texts)
    };
    assert_eq!(found(&[]), Found::Missing);
    assert_eq!(found(&["v=DKIM1; k=ed25519; p=AbC="]), Found::There);
    assert_eq!(found(&["other", "k=ed25519;t=s;p=Ab C= ;"]), Found::There);
    assert_eq!(found(&["v=DKIM1; k=ed25519; p="]), Found::Other);
    assert_eq!(found(&["v=DKIM1; p=AbC="]), Found::Other);
    let _no_text_panics = found_in(&key, &[vec![0xff, b';', b'p', b'=']]);
}
