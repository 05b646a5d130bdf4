//! (explain)
