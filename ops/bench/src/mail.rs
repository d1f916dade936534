//! SMTP and LMTP, the client's side: one message an operation.
//!
//! Where the server offers PIPELINING (RFC 2920), MAIL, all RCPT and DATA go in one write. LMTP answers
//! once a recipient (RFC 2033 §4.2). A recipient that is refused is counted as an error, and the
//! message goes to the others; an operation succeeds where at least one recipient has it.

mod session;

use env::Env;

use crate::{
    BenchError,
    args::MailArgs,
    connect::Target,
    load::{self, Plan},
    message::{self, Framing, Template},
    pattern::{Order, Pattern},
    progress::Progress,
    report::{Report, Subject},
};

use session::Session;

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    Smtp,
    Lmtp,
}

/// What all connections send.
pub(crate) struct Setup {
    target: Target,
    dialect: Dialect,
    from: Pattern,
    to: Pattern,
    recipients: u64,
    rcpts_per_message: u64,
    order: Order,
    seed: u64,
    templates: Vec<Template>,
}

/// Sends what the arguments say.
///
/// # Errors
/// Where it cannot begin; what goes wrong later is in the report.
pub(crate) async fn run(
    env: &Env,
    args: &MailArgs,
    dialect: Dialect,
) -> Result<Report, BenchError> {
    let common = &args.common;
    // New each time, so that no two runs send the same Message-ID.
    let this_run = u64::from_be_bytes(env.random_array());
    let templates = match &args.message.messages {
        Some(folder) => message::folder(folder, this_run, Framing::Dots)?,
        None => vec![Template::synthetic(args.message.size.0, this_run, Framing::Dots)],
    };
    let setup = Setup {
        target: Target::new(env, common).await?,
        dialect,
        from: args.from.clone(),
        to: args.to.clone(),
        recipients: args.recipients,
        rcpts_per_message: args.rcpts_per_message.min(args.recipients),
        order: args.order,
        seed: common.seed,
        templates,
    };
    let protocol = match dialect {
        Dialect::Smtp => "smtp",
        Dialect::Lmtp => "lmtp",
    };
    let subject = Subject { protocol, workload: "deliver", item: "deliveries" };
    let progress = Progress::new(env, common);
    let (run, span) = load::run::<Session>(env, Plan::new(common), setup, &progress).await;
    Ok(Report::new(subject, common, &run, span))
}

impl Setup {
    fn template(&self, turn: u64) -> &Template {
        let count = u64::try_from(self.templates.len()).expect("usize fits");
        let at = usize::try_from(turn % count).expect("it is an index");
        &self.templates[at]
    }

    /// Appends the address of the `turn`th message's `nth` recipient.
    fn write_recipient(&self, turn: u64, nth: u64, out: &mut Vec<u8>) {
        let first = self.order.pick(
            turn.wrapping_mul(match self.order {
                Order::RoundRobin => self.rcpts_per_message,
                Order::Random => 1,
            }),
            self.recipients,
            self.seed,
        );
        self.to.write((first + nth) % self.recipients + 1, out);
    }
}
