//! A client and the sender that it names, asked about while its message comes.

use std::net::IpAddr;

use env::Task;
use origin::{Connection, IprevResult, IprevVerdict, SpfVerdict};

use crate::services::Services;

/// What is found of a client and of a sender.
pub(crate) struct Asked {
    pub(crate) connection: Connection,
    pub(crate) sender: SpfVerdict,
}

/// The questions, under way. Dropped, they are asked no more.
pub(crate) struct Asking {
    answer: Task<Asked>,
    peer: IpAddr,
    helo: String,
}

impl Asking {
    /// Begins to ask; `sender` is empty for the null sender. Nobody waits for it.
    pub(crate) fn begin(services: &Services, peer: IpAddr, helo: String, sender: String) -> Self {
        let judge = super::judge(services);
        let name = helo.clone();
        let answer = services.env.spawn("judge-client", async move {
            let connection = judge.judge_connection(peer, &name).await;
            let sender = judge.judge_sender(&connection, &sender).await;
            Asked { connection, sender }
        });
        Self { answer, peer, helo }
    }

    /// Waits for the answers: as long as SPF may take for two identities at most.
    pub(crate) async fn answer(self) -> Asked {
        let Self { answer, peer, helo } = self;
        answer.await.unwrap_or_else(|env::TaskEnded| {
            tracing::error!("judging a client ended without a result");
            let iprev = IprevVerdict { result: IprevResult::TempError, name: None };
            let spf = SpfVerdict {
                result: origin::SpfResult::TempError,
                identity: helo.clone(),
                ..SpfVerdict::default()
            };
            let connection = Connection { peer, helo, iprev, spf_helo: spf.clone() };
            Asked { connection, sender: spf }
        })
    }
}
