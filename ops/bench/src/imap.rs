//! IMAP, the client's side: one command an operation, or a few.
//!
//! Answers are counted and skipped, never kept. A mailbox is selected once a connection; the sessions'
//! own changes come back as untagged responses within the measured answers, as they do to any
//! client.

mod commands;
mod session;

use env::Env;

use crate::{
    BenchError,
    args::{ImapArgs, Workload},
    connect::Target,
    load::{self, Amount, Plan, Timeout},
    message::{self, Framing, Template},
    progress::Progress,
    report::{Report, Subject},
};

use session::Session;

/// What all connections do.
pub(crate) struct Setup {
    target: Target,
    workload: Workload,
    mailbox: String,
    set: crate::args::Set,
    search: String,
    seed: u64,
    templates: Vec<Template>,
}

/// Does what the arguments say.
///
/// # Errors
/// Where it cannot begin; what goes wrong later is in the report.
pub(crate) async fn run(env: &Env, args: &ImapArgs) -> Result<Report, BenchError> {
    let common = &args.common;
    if common.user.is_none() {
        return Err(BenchError::Usage("IMAP needs --user and --password".to_owned()));
    }
    let mut plan = Plan::new(common);
    if args.workload == Workload::Idle {
        if matches!(plan.amount, Amount::Count(_)) || !plan.warm_up.is_zero() {
            let text = "idling has a --duration, and neither --count nor --warm-up";
            return Err(BenchError::Usage(text.to_owned()));
        }
        plan.timeout = Timeout::BeyondTheEnd(common.timeout);
    }
    let setup = Setup {
        target: Target::new(env, common).await?,
        workload: args.workload,
        mailbox: args.mailbox.clone(),
        set: args.set.clone(),
        search: args.search.clone(),
        seed: common.seed,
        templates: templates(env, args)?,
    };
    let item = match args.workload {
        Workload::Search => "matches",
        Workload::Idle => "sessions",
        _ => "messages",
    };
    let subject = Subject { protocol: "imap", workload: args.workload.name(), item };
    let progress = Progress::new(env, common);
    let (run, span) = load::run::<Session>(env, plan, setup, &progress).await;
    Ok(Report::new(subject, common, &run, span))
}

fn templates(env: &Env, args: &ImapArgs) -> Result<Vec<Template>, BenchError> {
    // New each time, so that no two runs send the same Message-ID.
    let this_run = u64::from_be_bytes(env.random_array());
    match &args.message.messages {
        _ if args.workload != Workload::Append => Ok(Vec::new()),
        Some(folder) => message::folder(folder, this_run, Framing::Counted),
        None => Ok(vec![Template::synthetic(args.message.size.0, this_run, Framing::Counted)]),
    }
}
