//! The registry against a naive model of itself, and its watches against the clock.

mod model;
mod watching;
