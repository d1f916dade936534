//! Senders: mail over SMTP, LMTP and submission, to one recipient and to several, here and
//! elsewhere. They note every reply.
//!
//! The recipients whose names begin with [`KEEPERS`] lose nothing: nobody but the delivery
//! touches their mailboxes. The world's other accounts get mail too, for whoever reads it.
//! A message that got no yes is sent again under another token, at another door.

use std::{sync::Arc, time::Duration};

use env::{BoxFuture, Env};
use mail::directory::ListKind;
use node::admin::lists;

use crate::{
    DOMAIN, Door, NodeId, Random, Share, What, Workload, World,
    clients::{
        letter,
        smtp::{Client, Outgoing, Told},
    },
};

/// How the names of recipients begin whose mailboxes nobody else touches.
pub const KEEPERS: &str = "keeper-";

/// Keepers.
const KEEPER_COUNT: u8 = 3;

/// An alias of all keepers and of somebody elsewhere.
const ALIAS: &str = "everybody";

/// Somebody elsewhere.
const ELSEWHERE: &str = "friend@remote.test";

/// The longest rest between two messages of one sender.
const PAUSE_MAX: Duration = Duration::from_secs(8);

pub(super) const SHARE: Share = Share {
    name: "delivery",
    per_mille: 900,
    make: |random| Arc::new(Delivery { senders: random.within(2..=4) }),
};

struct Delivery {
    senders: u64,
}

impl Workload for Delivery {
    fn name(&self) -> &'static str {
        SHARE.name
    }

    fn setup<'a>(&'a self, world: &'a World) -> BoxFuture<'a, ()> {
        Box::pin(async {
            let mut targets = vec![ELSEWHERE.to_owned()];
            for number in 1..=KEEPER_COUNT {
                targets.push(world.add_account(&format!("{KEEPERS}{number}"), 0).await.address);
            }
            let alias = format!("{ALIAS}@{DOMAIN}");
            lists::add(&world.admin(), ListKind::Alias, &alias, &targets)
                .await
                .expect("nobody disturbs it, and the name is free");
        })
    }

    fn run<'a>(&'a self, world: &'a World) -> BoxFuture<'a, ()> {
        Box::pin(async {
            let senders = (1..=self.senders).map(|number| {
                let sender = Sender::new(world, format!("sender-{number}"));
                world.client(&sender.name).spawn("sender", sender.run())
            });
            for sender in senders.collect::<Vec<_>>() {
                // A panic is told by the world.
                let _ended = sender.await;
            }
        })
    }
}

/// What a message is, before it has a token.
struct Draft {
    door: Door,
    /// Who submits it.
    user: Option<String>,
    from: String,
    to: Vec<String>,
}

struct Sender {
    world: World,
    name: String,
    env: Env,
    random: Random,
    sent: u64,
}

impl Sender {
    fn new(world: &World, name: String) -> Self {
        let (env, random) = (world.client(&name), world.random(&format!("delivery/{name}")));
        Self { world: world.clone(), name, env, random, sent: 0 }
    }

    async fn run(mut self) {
        while !self.world.is_over() {
            let mut draft = self.draft();
            let mut node = self.any_node();
            // RFC 5321 §4.5.4.1: whoever got no yes tries again.
            for _ in 0..3 {
                draft.to = self.session(&draft, node).await;
                if draft.to.is_empty() || self.world.is_over() {
                    break;
                }
                env::sometimes!("a sender tried again at another door");
                node = NodeId(node.0 % self.world.setup().nodes + 1);
            }
            let pause = self.random.up_to(PAUSE_MAX);
            self.world.rest(pause).await;
        }
    }

    fn any_node(&mut self) -> NodeId {
        let count = u64::from(self.world.setup().nodes);
        NodeId(u8::try_from(self.random.within(1..=count)).unwrap_or(1))
    }

    fn draft(&mut self) -> Draft {
        let random = &mut self.random;
        let mut to = Vec::new();
        for number in 1..=KEEPER_COUNT {
            if random.chance(350) {
                to.push(format!("{KEEPERS}{number}@{DOMAIN}"));
            }
        }
        if to.is_empty() || random.chance(250) {
            let account = random.pick(self.world.accounts()).expect("a world has accounts");
            to.push(account.address.clone());
        }
        let (door, user) = match random.below(5) {
            0 | 1 => (Door::Smtp, None),
            2 | 3 => (Door::Lmtp, None),
            _ => {
                let user = random.pick(self.world.accounts()).expect("a world has accounts");
                (Door::Submissions, Some(user.address.clone()))
            }
        };
        if user.is_some() {
            to.push(format!("somebody-{}@remote.test", random.below(9)));
        } else if random.chance(150) {
            to = vec![format!("{ALIAS}@{DOMAIN}")];
        }
        let from = user.clone().unwrap_or_else(|| "sender@remote.test".to_owned());
        Draft { door, user, from, to }
    }

    /// Sends one message in a session of its own. Returns who is left without it.
    async fn session(&mut self, draft: &Draft, node: NodeId) -> Vec<String> {
        let to = self.world.door(node, draft.door);
        let user = draft.user.as_deref();
        let open = Client::open(&self.world, &self.env, to, draft.door, user).await;
        let Ok(mut client) = open else { return draft.to.clone() };
        self.sent += 1;
        let token = format!("{}m{}", self.name.replace("sender-", "s"), self.sent);
        let text = text(&mut self.random, &token, &draft.to);
        let message = Outgoing { from: &draft.from, to: &draft.to, text: &text };
        let told = send_noting(&self.world, &self.name, &mut client, &token, message).await;
        if told.iter().all(|one| matches!(one, Told::Lost(_))) {
            return draft.to.clone();
        }
        client.quit().await;
        let left = draft.to.iter().zip(&told);
        left.filter(|(_, told)| !matches!(told, Told::Accepted(_)))
            .map(|(to, _)| to.clone())
            .collect()
    }
}

/// Sends a message and notes what came of it. An alias counts as those whom it stands for.
pub(super) async fn send_noting(
    world: &World,
    host: &str,
    client: &mut Client,
    token: &str,
    message: Outgoing<'_>,
) -> Vec<Told> {
    let facts = world.facts();
    let recipients = message.to.iter().flat_map(|to| stands_for(to)).collect();
    facts.note(host, What::Sending { token: token.to_owned(), recipients });
    let told = client.send(message).await;
    for (to, told) in message.to.iter().zip(&told) {
        for recipient in stands_for(to) {
            let token = token.to_owned();
            facts.note(
                host,
                match told {
                    Told::Accepted(reply) => {
                        What::Accepted { token, recipient, reply: reply.clone() }
                    }
                    Told::Refused(reply) => {
                        What::Refused { token, recipient, reply: reply.clone() }
                    }
                    Told::Lost(why) => {
                        What::Refused { token, recipient, reply: format!("lost: {why}") }
                    }
                },
            );
        }
    }
    told
}

fn stands_for(recipient: &str) -> Vec<String> {
    if recipient != format!("{ALIAS}@{DOMAIN}") {
        return vec![recipient.to_owned()];
    }
    keepers().chain([ELSEWHERE.to_owned()]).collect()
}

/// The keepers' addresses.
pub(super) fn keepers() -> impl Iterator<Item = String> {
    (1..=KEEPER_COUNT).map(|number| format!("{KEEPERS}{number}@{DOMAIN}"))
}

/// A letter whose subject is its token: mostly of some lines, now and then of as many as one piece of a
/// blob holds, and seldom of as many as several windows.
pub(super) fn text(random: &mut Random, token: &str, to: &[String]) -> String {
    let lines = match random.below(1_000) {
        0..6 => random.within(4_000..=24_000),
        6..30 => random.within(500..=2_500),
        _ => random.below(20),
    };
    let mut text = format!(
        "{}To: {}\r\nDate: Tue, 1 Jan 2030 00:00:00 +0000\r\nSubject: {token}\r\n\
         Message-ID: <{token}@remote.test>\r\n\r\nfor {}\r\n",
        letter::BEGINS,
        to.join(", "),
        to.join(" "),
    );
    for line in 0..lines {
        text.push_str(&format!(".{line} {:016x} {:016x}\r\n", random.any(), random.any()));
    }
    letter::sealed(text)
}
