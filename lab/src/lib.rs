//! Multi-cloud topologies in network namespaces on one machine
