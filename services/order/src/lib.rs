//! Example service: purchases, through whatever product instance discovery names.
//!
//! Made to be copied. [`shop`] decides what to do when a sale fails; [`till`] is one sale, through
//! [`Discovery::http`](roundsman::Discovery::http), and what is certain after it; [`routes`] is the HTTP door; `main.rs`
//! names it. What every service process needs comes from [`roundsman::service`].
//!
//! # What a purchase guarantees
//!
//! - It ends within [`shop::BUDGET`], whatever products and discovery do.
//! - One purchase takes at most one from all instances that are alive. Every purchase has a key of its own, by which a
//!   product instance sells once: when a connection breaks before the answer came, the same instance is asked again
//!   with the same key. When it is gone, its stock, which lived in its memory, went with it, and another is asked.
//! - An instance that went silent in the middle of a sale is passed over, and told to undo that sale as soon as it
//!   answers again, for up to [`shop::UNDO_FOR`]. Until then it may hold one too few; nothing is charged for twice.
//! - Instances that say goodbye are finished with before they go: a rolling restart of all products fails no purchase.
//! - "Sold out" is said only when every instance that is handed out says so.
//! - A buyer who hangs up in the middle has bought: a purchase that has begun is carried to its end.

pub mod routes;
pub mod shop;
pub mod till;
