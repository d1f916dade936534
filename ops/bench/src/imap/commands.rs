//! The workloads: which commands an operation sends.

use super::{Setup, session::Session};
use crate::{
    args::{Set, Workload},
    failure::{Failure, Kind},
    load::{Done, Run},
    pattern::scattered,
    progress,
};

/// Every so many operations of the mixed workload its pattern begins again.
const MIXED: [Workload; 10] = [
    Workload::FetchFlags,
    Workload::FetchEnvelope,
    Workload::FetchBody,
    Workload::Store,
    Workload::FetchBody,
    Workload::Store,
    Workload::FetchFlags,
    Workload::Search,
    Workload::FetchEnvelope,
    Workload::FetchBody,
];

/// Messages that the mixed workload's lists show: a screen.
const SCREEN: u64 = 50;

impl Session {
    pub(super) async fn work(
        &mut self,
        setup: &Setup,
        run: &Run,
        turn: u64,
    ) -> Result<Done, Failure> {
        match setup.workload {
            Workload::Append => self.append(setup, turn).await,
            Workload::Idle => self.idle(run).await,
            Workload::Mixed => {
                let at = usize::try_from(turn % 10).expect("it is below ten");
                let workload = MIXED[at];
                let set = match workload {
                    Workload::FetchBody | Workload::Store => self.one(setup.seed),
                    _ => format!("{}:*", self.exists.saturating_sub(SCREEN - 1).max(1)),
                };
                self.ask(setup, workload, &set).await
            }
            workload => {
                let set = match &setup.set {
                    Set::One => self.one(setup.seed),
                    Set::Fixed(set) => set.clone(),
                };
                self.ask(setup, workload, &set).await
            }
        }
    }

    /// A message by chance; the same twice in a row, so that STORE takes back what it did.
    fn one(&self, seed: u64) -> String {
        let turn = self.asked / 2;
        let seed = scattered(self.connection, seed);
        (scattered(turn, seed) % self.exists.max(1) + 1).to_string()
    }

    async fn ask(&mut self, setup: &Setup, workload: Workload, set: &str) -> Result<Done, Failure> {
        let command = match workload {
            Workload::FetchFlags => format!("FETCH {set} (FLAGS)"),
            Workload::FetchEnvelope => format!("FETCH {set} (ENVELOPE)"),
            Workload::FetchBody => format!("FETCH {set} (BODY.PEEK[])"),
            Workload::Store => {
                let sign = if self.asked.is_multiple_of(2) { '+' } else { '-' };
                format!("STORE {set} {sign}FLAGS (\\Flagged)")
            }
            Workload::Search => format!("SEARCH {}", setup.search),
            Workload::Select => format!("SELECT \"{}\"", setup.mailbox),
            Workload::Append | Workload::Idle | Workload::Mixed => {
                unreachable!("these are no single command")
            }
        };
        self.asked += 1;
        let before = self.wire.received();
        let told = self.command(&command).await?;
        let items = match workload {
            Workload::Search => told.matches,
            Workload::Select => told.exists.unwrap_or(0),
            _ => told.fetched,
        };
        if items == 0 && matches!(workload, Workload::FetchBody | Workload::FetchEnvelope) {
            return Err(Failure::refused(
                Kind::Protocol,
                format_args!("nothing came for {command}"),
            ));
        }
        Ok(Done { items, bytes: self.wire.received() - before, took: None })
    }

    /// RFC 9051 §6.3.12.
    async fn append(&mut self, setup: &Setup, turn: u64) -> Result<Done, Failure> {
        let count = u64::try_from(setup.templates.len()).expect("usize fits");
        let at = usize::try_from(turn % count).expect("it is an index");
        let template = &setup.templates[at];
        let length = template.len();
        // RFC 7888 §5: LITERAL- lets 4,096 bytes come unasked for.
        let unasked = self.offers.literal_plus || (self.offers.literal_minus && length <= 4096);
        let plus = if unasked { "+" } else { "" };
        let tag = self.next_tag();
        let mut out =
            format!("{tag} APPEND \"{}\" {{{length}{plus}}}\r\n", setup.mailbox).into_bytes();
        if !unasked {
            self.wire.send(&out).await?;
            self.go_ahead(&tag).await?;
            out.clear();
        }
        let rest = template.write(turn, &mut out);
        self.wire.send_two(&out, rest).await?;
        self.wire.send(b"\r\n").await?;
        self.answer(&tag).await?;
        let bytes = u64::try_from(length).expect("usize fits");
        Ok(Done { items: 1, bytes, took: None })
    }

    /// RFC 2177. Its latency is that of the server's go-ahead.
    async fn idle(&mut self, run: &Run) -> Result<Done, Failure> {
        let began = run.now();
        let before = self.wire.received();
        let tag = self.next_tag();
        self.wire.send(format!("{tag} IDLE\r\n").as_bytes()).await?;
        self.go_ahead(&tag).await?;
        let took = run.now() - began;
        let held = run.hold();
        if held == run.opened.load(std::sync::atomic::Ordering::Relaxed) {
            progress::note(&format!("holding {held} sessions"));
        }
        let mut ended = Box::pin(run.ended());
        loop {
            tokio::select! {
                () = &mut ended => break,
                line = self.wire.line() => {
                    line?;
                    if self.wire.head().starts_with(b"* BYE") || !self.wire.head().starts_with(b"*") {
                        return Err(Failure::unexpected("silence", self.wire.head()));
                    }
                }
            }
        }
        self.wire.send(b"DONE\r\n").await?;
        self.answer(&tag).await?;
        Ok(Done { items: 1, bytes: self.wire.received() - before, took: Some(took) })
    }
}
