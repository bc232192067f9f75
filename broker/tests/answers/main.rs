//! What a broker answers, and that its configs do what they say: one request at a time to the production server in a
//! simulated world, without faults.

// The simulation's, used in part.
mod configs;
#[allow(dead_code)]
#[path = "../simulation/connection.rs"]
mod connection;
mod edges;
mod elsewhere;
mod every_request;
mod large;
mod strangers;
mod world;
