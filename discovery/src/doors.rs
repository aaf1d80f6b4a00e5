//! The ways in.

pub(crate) mod http;
pub(crate) mod rpc;
