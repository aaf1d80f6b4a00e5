//! Instances of one service, each a process of its own that registers itself: to be called, killed and frozen.

use std::{collections::VecDeque, net::SocketAddr, time::Duration};

use crate::{
    args::Manner,
    error::{Context, Result},
    isolated::Core,
    population,
    process::Helper,
    rows::kills::SERVICE,
};

/// How long an instance may take until it is handed out.
const PATIENCE: Duration = Duration::from_secs(20);

/// The instances that are handed out, the oldest first.
#[derive(Debug)]
pub(crate) struct Herd {
    server: SocketAddr,
    living: VecDeque<(String, Helper)>,
    started: usize,
}

// === impl Herd ===

impl Herd {
    /// Starts so many, and returns when all of them are handed out.
    pub(crate) async fn start(server: SocketAddr, count: usize) -> Result<Self> {
        Self::of(server, &vec![Manner::default(); count]).await
    }

    /// The same with one for each manner.
    pub(crate) async fn of(server: SocketAddr, manners: &[Manner]) -> Result<Self> {
        let mut herd = Self { server, living: VecDeque::new(), started: 0 };
        for manner in manners {
            herd.begin(manner).await?;
        }
        herd.settle().await?;
        Ok(herd)
    }

    /// One more, handed out.
    pub(crate) async fn grow(&mut self) -> Result<()> {
        self.begin(&Manner::default()).await?;
        self.settle().await
    }

    /// How often each of them was called, the oldest first.
    pub(crate) async fn calls(&mut self) -> Result<Vec<u64>> {
        let mut all = Vec::new();
        for (_, helper) in &mut self.living {
            all.push(helper.ask("calls").await?.parse().context("reading an instance's answer")?);
        }
        Ok(all)
    }

    /// Takes the oldest one out of the herd, with its id: whoever drops it kills it.
    pub(crate) fn oldest(&mut self) -> Option<(String, Helper)> {
        self.living.pop_front()
    }

    /// Waits until exactly those who live are handed out.
    pub(crate) async fn settle(&self) -> Result<()> {
        let living = u32::try_from(self.living.len()).unwrap_or(u32::MAX);
        population::wait_until_passing(self.server, living, PATIENCE).await
    }

    async fn begin(&mut self, manner: &Manner) -> Result<()> {
        let id = format!("{SERVICE}-{}", self.started);
        self.started += 1;
        let mut arguments = ["target", "--id", &id, "--server", &self.server.to_string()].map(str::to_owned).to_vec();
        arguments.extend(manner.arguments());
        let (helper, _) = Helper::start(Core::Any, &arguments).await?;
        self.living.push_back((id, helper));
        Ok(())
    }
}
