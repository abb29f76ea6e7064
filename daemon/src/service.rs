//! Builds the parts, starts the threads, shuts down in order.
