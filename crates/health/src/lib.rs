//! The rounds: schedule, probes, verdicts and the brake.
//!
//! This crate visits instances and says what it found. It knows no store and no door, and changes nothing in the
//! registry: whoever started the [`Rounds`] reads its [`Observation`]s and carries them out. What a visit means is
//! decided by pure state machines (one per instance, one for the brake); sockets are in the probes alone.

mod brake;
mod habit;
mod lag;
mod lanes;
mod line;
mod machine;
mod names;
mod observation;
mod probe;
mod roll;
mod rounds;
mod schedule;
mod settings;
mod shared;
mod shares;
mod target;
mod visitor;
mod waits;

pub use observation::{Class, Nudge, Observation, Witness};
pub use rounds::Rounds;
pub use settings::Settings;
pub use target::TargetPolicy;
