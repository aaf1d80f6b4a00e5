//! The server on real sockets.

mod bad_input;
mod by_hand;
mod health;
mod http_door;
mod limits;
mod redis;
mod restart;
mod stopping;
mod support;
