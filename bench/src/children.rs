//! What this program starts of itself: the floor, and instances to be visited and killed.
//!
//! A child says in one line that it is ready, answers each line of its standard input with one, and ends when its
//! standard input does: when its parent is gone, whatever became of it.

mod floor;
mod health;
mod hung;
mod listeners;
mod resolvers;
mod single;
mod target;

use std::os::fd::AsFd;

use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::unix::pipe,
};

use crate::{
    args::Child,
    error::{Context, Result},
    report,
};

/// Is that child.
pub(crate) async fn run(child: &Child) -> Result<()> {
    match child {
        Child::Floor { services, answer } => floor::run(*services, *answer).await,
        Child::Target { id, server, manner } => target::run(id, *server, manner).await,
        Child::Resolvers { server, services, each } => resolvers::run(*server, *services, *each).await,
        Child::Listeners { first, count, port } => listeners::run(*first, *count, *port).await,
        Child::Hung { first, count, port } => hung::run(*first, *count, *port).await,
        Child::Single { address } => single::run(*address).await,
    }
}

/// Says that the child is ready, answers questions, and returns when the parent is gone.
async fn serve_parent(ready: &str, answer: impl Fn(&str) -> String) -> Result<()> {
    let stdin = std::io::stdin().as_fd().try_clone_to_owned().context("cloning the standard input")?;
    let questions = pipe::Receiver::from_owned_fd(stdin).context("reading the standard input")?;
    let mut questions = BufReader::new(questions).lines();
    report::line(ready);
    while let Some(question) = questions.next_line().await.context("reading the standard input")? {
        report::line(&answer(&question));
    }
    Ok(())
}
