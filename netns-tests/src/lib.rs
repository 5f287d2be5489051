//! End-to-end tests, demos and benchmarks in network namespaces
