//! The binary: names the subcommands and hands over. Knows nothing else.

fn main() {}
