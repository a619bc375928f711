//! Placeholder for the numbers (see the value branch).
