//! Everything that can go wrong with a request, at the first, a middle and the last one, of one small file, of a large one and
//! of many: the load ends whole, without a user noticing.

use std::sync::Mutex;
use std::thread;

use substratus_tests::hub::{Fault, Kind, Rule};

use super::*;

/// A little more than two parts.
const LARGE: u64 = 33 * MIB;
const SMALL: u64 = 300_000;
const COUNT: usize = 12;
/// Loads at the same time: most of them wait for the clock.
const WORKERS: usize = 6;

const FAULTS: [Fault; 10] = [
    Fault::CutAfter(1000),
    Fault::StallAfter(1000),
    Fault::WrongByte,
    Fault::ChangedContent,
    Fault::ShortBody(7),
    Fault::ExtraBody(7),
    Fault::Expired,
    Fault::Status(503),
    Fault::TooManyRequests { seconds: 1 },
    Fault::NotFound,
];

#[derive(Clone, Copy, Debug)]
enum Shape {
    Small,
    Large,
    Many,
}

#[derive(Clone, Copy, Debug)]
enum Place {
    First,
    Middle,
    Last,
}

/// One cell of the matrix.
#[derive(Clone, Copy, Debug)]
struct Cell {
    fault: Fault,
    shape: Shape,
    place: Place,
}

impl Cell {
    /// Every one that differs from the others: a small file is one request.
    fn all() -> Vec<Self> {
        let cell = |fault, (shape, place)| Self { fault, shape, place };
        let places = [Place::First, Place::Middle, Place::Last];
        let large = places.into_iter().flat_map(|place| [(Shape::Large, place), (Shape::Many, place)]);
        let shapes: Vec<_> = large.chain([(Shape::Small, Place::First)]).collect();
        FAULTS.into_iter().flat_map(|fault| shapes.iter().map(move |shape| cell(fault, *shape))).collect()
    }

    fn files(self) -> Vec<(String, u64)> {
        match self.shape {
            Shape::Small => vec![("model.safetensors".to_owned(), SMALL)],
            Shape::Large => vec![("model.safetensors".to_owned(), LARGE)],
            Shape::Many => (0..COUNT).map(|number| (format!("part-{number:02}.safetensors"), SMALL)).collect(),
        }
    }

    fn rule(self) -> Rule {
        let (file, byte) = match (self.shape, self.place) {
            (Shape::Small, _) | (Shape::Large, Place::First) => ("model".to_owned(), 0),
            (Shape::Large, Place::Middle) => ("model".to_owned(), LARGE / 2),
            (Shape::Large, Place::Last) => ("model".to_owned(), LARGE - 1),
            (Shape::Many, Place::First) => ("part-00".to_owned(), 0),
            (Shape::Many, Place::Middle) => (format!("part-{:02}", COUNT / 2), 0),
            (Shape::Many, Place::Last) => (format!("part-{:02}", COUNT - 1), 0),
        };
        Rule::cdn(&file, self.fault).at(byte).once()
    }

    /// Runs the load; says what is wrong with its end.
    fn check(self) -> Result<(), String> {
        let files = self.files();
        let repo =
            files.iter().zip(1..).fold(Repo::model("acme/tiny").file("config.json", "{}"), |repo, ((path, size), seed)| {
                repo.file(path, Content::noise(seed, *size))
            });
        let bench = Bench::new(Hub::builder().token(TOKEN).repo(repo));
        bench.hub.fault(self.rule());
        let loaded = bench.load();
        if !matches!(loaded.outcome, Outcome::Complete { .. }) {
            return Err(loaded.everything);
        }
        let whole: u64 = files.iter().map(|(_, size)| size).sum();
        let sent = bench.hub.stats().cdn.bytes;
        // At most what lies before the range and the range itself come twice; what is only cut or refused, not even that.
        let most = if matches!(self.fault, Fault::WrongByte | Fault::ChangedContent) { 2 * whole } else { whole + 17 * MIB };
        if sent > most {
            return Err(format!("{sent} bytes were sent of {whole}"));
        }
        for (path, _) in files {
            let found = hex::encode(Sha256::digest(std::fs::read(bench.artifact(&path)).unwrap()));
            let expected = bench.hub.sha256(Kind::Model, "acme/tiny", "main", &path).unwrap();
            if found != expected {
                return Err(format!("{path} is {found} and not {expected}"));
            }
        }
        if bench.hub.faults().iter().all(|rule| rule.times == Some(0)) {
            Ok(())
        } else {
            Err("the fault struck nobody".to_owned())
        }
    }
}

#[test]
fn every_fault_at_every_place_of_every_shape_is_got_over() {
    let (cells, wrong) = (Mutex::new(Cell::all()), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                loop {
                    let Some(cell) = cells.lock().unwrap().pop() else { break };
                    if let Err(what) = cell.check() {
                        wrong.lock().unwrap().push(format!("{cell:?}: {what}"));
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{} cells:\n{}", wrong.len(), wrong.join("\n"));
}
