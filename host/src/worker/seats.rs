//! Who may have a connection now: as many as the pace allows, files in the order of the plan, new files last. Knows no HTTP.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use super::counters::Counters;
use super::pace::{Pace, ROUND};

/// The connections of one transfer. Clones share them.
#[derive(Clone, Debug)]
pub struct Seats(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    pace: Pace,
    used: usize,
    /// Bytes a second of the last round.
    rate: f64,
    /// Somebody waited since the last round.
    wanted: bool,
    tickets: u64,
    /// By whose turn it is.
    waiting: BTreeMap<(Turn, u64), oneshot::Sender<Seat>>,
}

/// Whose turn comes first: a file that is in work before one that is not, and those in the plan's order. So a large file has
/// many connections, and many small ones have one each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Turn {
    /// More of the file with this number.
    Range(usize),
    /// A file that has not begun.
    File,
}

/// The right to one connection, until it is dropped.
#[derive(Debug)]
pub struct Seat(Seats);

impl Drop for Seat {
    fn drop(&mut self) {
        let woken = {
            let mut state = self.0.state();
            state.used = state.used.saturating_sub(1);
            state.called(&self.0)
        };
        wake(woken);
    }
}

impl Seats {
    /// At most `most` at the same time.
    pub fn new(most: usize) -> Self {
        let pace = Pace::new(most);
        let state = State { pace, used: 0, rate: 0.0, wanted: false, tickets: 0, waiting: BTreeMap::new() };
        Self(Arc::new(Mutex::new(state)))
    }

    /// Waits for a connection's turn.
    pub async fn take(&self, turn: Turn) -> Seat {
        loop {
            let (sender, receiver) = oneshot::channel();
            let woken = {
                let mut state = self.state();
                state.tickets += 1;
                let ticket = (turn, state.tickets);
                state.waiting.insert(ticket, sender);
                let woken = state.called(self);
                state.wanted |= !state.waiting.is_empty();
                woken
            };
            wake(woken);
            // The sender is dropped only with the seats themselves.
            if let Ok(seat) = receiver.await {
                return seat;
            }
        }
    }

    /// Connections that may be open now.
    pub fn limit(&self) -> usize {
        self.state().pace.limit()
    }

    /// A server refused for now, or did not answer in time: fewer connections.
    pub fn trouble(&self) {
        self.state().pace.trouble();
    }

    /// Seconds that so many bytes take on one connection, as fast as it went in the last round; nothing where nothing came.
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    pub fn seconds_for(&self, bytes: u64) -> Option<f64> {
        let state = self.state();
        (state.rate > 0.0).then(|| bytes as f64 * state.used.max(1) as f64 / state.rate)
    }

    /// Measures what arrives, and has as many connections as that is worth. Never ends.
    #[expect(clippy::cast_precision_loss, reason = "a rate")]
    pub async fn keep_pace(&self, counters: &Counters) -> Infallible {
        let (mut before, mut began) = (counters.snapshot().fetched, tokio::time::Instant::now());
        loop {
            tokio::time::sleep(ROUND).await;
            let (fetched, now) = (counters.snapshot().fetched, tokio::time::Instant::now());
            let rate = fetched.saturating_sub(before) as f64 / (now - began).as_secs_f64();
            (before, began) = (fetched, now);
            let woken = {
                let mut state = self.state();
                let wanted = std::mem::take(&mut state.wanted) || !state.waiting.is_empty();
                state.rate = rate;
                state.pace.round(rate, wanted);
                state.called(self)
            };
            wake(woken);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Those whose turn it is now, with their seats, which are counted already.
    fn called(&mut self, seats: &Seats) -> Vec<(oneshot::Sender<Seat>, Seat)> {
        let mut called = Vec::new();
        while self.used < self.pace.limit()
            && let Some((_, sender)) = self.waiting.pop_first()
        {
            // Who is not there any more needs none.
            if !sender.is_closed() {
                self.used += 1;
                called.push((sender, Seat(seats.clone())));
            }
        }
        called
    }
}

/// Without the lock: a seat that nobody takes is given back at once.
fn wake(called: Vec<(oneshot::Sender<Seat>, Seat)>) {
    for (sender, seat) in called {
        drop(sender.send(seat));
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn files_in_work_come_before_new_ones_and_in_order() {
        let seats = Seats::new(1);
        let held = seats.take(Turn::File).await;
        let mut new = Box::pin(seats.take(Turn::File));
        let mut later = Box::pin(seats.take(Turn::Range(7)));
        let mut first = Box::pin(seats.take(Turn::Range(3)));
        assert!((&mut new).now_or_never().is_none());
        assert!((&mut later).now_or_never().is_none());
        assert!((&mut first).now_or_never().is_none());
        drop(held);
        assert!((&mut new).now_or_never().is_none() && (&mut later).now_or_never().is_none());
        drop(first.now_or_never().unwrap());
        assert!((&mut new).now_or_never().is_none());
        drop(later.now_or_never().unwrap());
        drop(new.now_or_never().unwrap());
    }

    #[tokio::test]
    async fn who_goes_away_keeps_nobody_waiting() {
        let seats = Seats::new(1);
        let held = seats.take(Turn::File).await;
        let mut gone = Box::pin(seats.take(Turn::Range(0)));
        assert!((&mut gone).now_or_never().is_none());
        let mut woken_and_gone = Box::pin(seats.take(Turn::Range(1)));
        assert!((&mut woken_and_gone).now_or_never().is_none());
        let waits = tokio::spawn({
            let seats = seats.clone();
            async move { drop(seats.take(Turn::Range(2)).await) }
        });
        tokio::task::yield_now().await;
        drop(gone);
        drop(held);
        drop(woken_and_gone);
        waits.await.unwrap();
        assert_eq!(seats.state().used, 0);
    }

    #[tokio::test]
    async fn more_seats_are_there_when_more_bytes_come() {
        let (seats, counters) = (Seats::new(32), Counters::default());
        let taken = futures::future::join_all((0..16).map(|_| seats.take(Turn::File))).await;
        let (wanted, measured) = (seats.clone(), &counters);
        tokio::select! {
            never = seats.keep_pace(measured) => match never {},
            () = async {
                let _more = wanted.take(Turn::File).await;
                assert_eq!(wanted.limit(), 32, "somebody waited for it");
            } => {}
            () = async {
                loop {
                    tokio::time::sleep(ROUND / 10).await;
                    measured.arrived(1_000_000);
                }
            } => {}
        }
        drop(taken);
    }
}
