//! Example service: product details and stock.
//!
//! Made to be copied. [`stock`] is what the service is about and knows nothing of HTTP; [`routes`] is its door; `main.rs`
//! names it. What every service process needs comes from [`roundsman::service`].

pub mod routes;
pub mod stock;
