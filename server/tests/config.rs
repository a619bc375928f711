//! Runs the tests of `server/src/config.rs`. Delete this file once `main.rs` has `mod config;`.

#[path = "../src/config.rs"]
mod config;
