//! Misbehaviour that never answers: time, memory, stack, traps.

use std::hint::black_box;

use substratus_plugin::{Failure, loader::PlanPage};

/// Burns what `how` names; `None` where it names something else.
pub(crate) fn burn(how: &str) -> Option<Result<PlanPage, Failure>> {
    match how {
        "loop" => spin(),
        "eat" => eat(1 << 20),
        "eat-at-once" => eat(1 << 30),
        "recurse" => {
            let depth = recurse(1);
            Some(Err(Failure::Internal(format!("recursed {depth} times"))))
        }
        "panic" => panic!("a panic with {} words of nonsense", 5),
        "trap" => trap(),
        "divide" => Some(Err(Failure::Internal(format!("{}", 1 / black_box(0))))),
        _ => None,
    }
}

fn spin() -> ! {
    let mut count: u64 = 0;
    loop {
        count = black_box(count.wrapping_add(1));
    }
}

/// Takes memory in pieces and touches every page, until there is no more.
fn eat(piece: usize) -> ! {
    let mut pieces = Vec::new();
    loop {
        pieces.push(black_box(vec![1_u8; piece]));
    }
}

/// Small frames: the engine's stack ends first, not the guest's own in its memory.
fn recurse(depth: u64) -> u64 {
    let again: fn(u64) -> u64 = black_box(recurse);
    1 + again(depth + 1)
}

fn trap() -> ! {
    #[cfg(target_arch = "wasm32")]
    core::arch::wasm32::unreachable();
    #[cfg(not(target_arch = "wasm32"))]
    std::process::abort()
}
