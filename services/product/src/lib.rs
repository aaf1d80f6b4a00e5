//! Example service: product details and stock.
//!
//! Made to be copied. [`stock`] is what the service is about and knows nothing of HTTP; [`routes`] is its door;
//! [`args`] is the command line; [`process`] is what every process needs; `main.rs` binds, registers, serves and leaves.

pub mod args;
pub mod process;
pub mod routes;
pub mod stock;
