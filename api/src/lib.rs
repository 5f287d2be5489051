//! What clients and agents speak
