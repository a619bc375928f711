//! Placeholder.

#[allow(dead_code, unused_imports)] // until the disk thread is here
mod disk;

fn main() {}
