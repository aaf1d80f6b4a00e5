//! What calls tell of themselves, through the `metrics` facade, to whichever exporter the program has installed.
//!
//! | name | type | unit | labels | tells |
//! |---|---|---|---|---|
//! | `roundsman_client_calls_total` | counter | count | `service`, `outcome` | calls by name, over HTTP, gRPC and the middleware |
//! | `roundsman_client_call_duration_seconds` | histogram | seconds | `service` | how long they took in all, until the body or the head was there |
//! | `roundsman_client_tries_total` | counter | count | `service` | requests that went out, repetitions and hedges included |
//! | `roundsman_client_hedges_total` | counter | count | `service` | those that went out because another one kept its caller waiting |
//! | `roundsman_client_failures_total` | counter | count | `service`, `trouble` | those that failed |
//! | `roundsman_client_ejections_total` | counter | count | `service` | times that an instance was passed over from then on |
//! | `roundsman_client_list_age_seconds` | gauge | seconds | `service` | for how long no server has confirmed the list, as of the last call; 0 while one does |
//!
//! `service` is the name of the service that is called, of which a program has few; never an instance. Names that nobody has
//! registered are all counted as one, with an empty name. `outcome` is how the call ended: `answered`, `troubled` (an answer 500,
//! 502, 503 or 504, or what gRPC has in their place), `deadline`, `failed`, `nobody` (there was no instance), `other` (what was to
//! be sent was no request, the answer was too long, no server told of the service, or the client was closed) or `abandoned` (its
//! caller did not wait for the end). `trouble` is `refused`, `reset`, `timeout`, `status` or `failing`.
//!
//! An instance is passed over by all resolvers of a client, so ejections are counted for picks as well.
//!
//! Names and labels are kept as an interface is: they change with a major version. Install the exporter before the client is
//! made, which describes all of them to it: one that comes later counts from then on, without units and help. A
//! feature of this crate, `metrics`, turns all of this on.

/// Calls by name; a counter with the labels `service` and `outcome`.
pub const CALLS: &str = "roundsman_client_calls_total";
/// How long calls took; a histogram in seconds with the label `service`.
pub const CALL_DURATION: &str = "roundsman_client_call_duration_seconds";
/// Requests that went out; a counter with the label `service`.
pub const TRIES: &str = "roundsman_client_tries_total";
/// Requests that went out beside others; a counter with the label `service`.
pub const HEDGES: &str = "roundsman_client_hedges_total";
/// Requests that failed; a counter with the labels `service` and `trouble`.
pub const FAILURES: &str = "roundsman_client_failures_total";
/// Instances that were passed over from then on; a counter with the label `service`.
pub const EJECTIONS: &str = "roundsman_client_ejections_total";
/// For how long no server has confirmed a list; a gauge in seconds with the label `service`.
pub const LIST_AGE: &str = "roundsman_client_list_age_seconds";

/// All of them.
pub const ALL: [&str; 7] = [CALLS, CALL_DURATION, TRIES, HEDGES, FAILURES, EJECTIONS, LIST_AGE];

/// Says what each of them is, to the exporter that is installed by now.
pub(crate) fn describe() {
    use ::metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

    describe_counter!(CALLS, Unit::Count, "Calls by name, by how they ended");
    describe_histogram!(CALL_DURATION, Unit::Seconds, "How long calls by name took in all");
    describe_counter!(TRIES, Unit::Count, "Requests that calls by name sent, repetitions and hedges included");
    describe_counter!(HEDGES, Unit::Count, "Requests that were sent because another one kept its caller waiting");
    describe_counter!(FAILURES, Unit::Count, "Requests that failed, by what kind of failure");
    describe_counter!(EJECTIONS, Unit::Count, "Times that an instance was passed over from then on");
    describe_gauge!(LIST_AGE, Unit::Seconds, "For how long no server has confirmed the list of instances");
}
