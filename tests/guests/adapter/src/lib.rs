//! A server adapter that answers outside its grant, as the parameter `do` says. Test material; it asked for images below
//! `docker.io/hostile/` alone.

use substratus_plugin::{
    Failure,
    adapter::{Cache, Container, Fitness, Guest, Metrics, Probe, Request},
    invalid,
    params::Params,
};

/// More than the best, or better than an engine on a processor where it is to be good.
pub fn fit(request: &Request) -> Fitness {
    match Params::new(&request.params).text("do") {
        Ok(Some(how)) if how == "good" => Fitness { score: 90, reason: "good".into() },
        _ => Fitness { score: 255, reason: "me\nme \u{1b}[31mme".into() },
    }
}

/// Does what was asked.
///
/// # Panics
///
/// Where that is asked.
pub fn serve(request: &Request) -> Result<Container, Failure> {
    let how = Params::new(&request.params).text("do")?.unwrap_or_default();
    let good = good();
    let cache = |mount_path: &str| vec![Cache { name: "c".into(), mount_path: mount_path.into(), size: None }];
    let env = |name: &str| vec![(name.to_owned(), "x".to_owned())];
    Ok(match how.as_str() {
        "good" => good,
        "loop" => loop {
            std::hint::black_box(&how);
        },
        "panic" => panic!("an adapter's panic with {} words", 5),
        "eat" => {
            let mut pieces = Vec::new();
            loop {
                // Not written to: what a page costs must not use up the time first.
                pieces.push(std::hint::black_box(Vec::<u8>::with_capacity(1 << 20)));
            }
        }
        "recurse" => Container { reason: format!("recursed {} times", recurse(1)), ..good },
        "recurse-wide" => Container { reason: format!("recursed {} times", recurse_wide(1)), ..good },
        "image" => Container { image: "docker.io/evil/miner:latest".into(), ..good },
        "image-prefix" => Container { image: "docker.io/hostile-not/server:1".into(), ..good },
        "image-dotdot" => Container { image: "docker.io/hostile/../evil/miner:1".into(), ..good },
        "image-odd" => Container { image: "docker.io/hostile/server:1 --privileged".into(), ..good },
        "cache-root" => Container { caches: cache("/"), ..good },
        "cache-model" => Container { caches: cache("/content/model"), ..good },
        "cache-params" => Container { caches: cache("/content/params.json"), ..good },
        "cache-token" => Container { caches: cache("/var/run/secrets/kubernetes.io/serviceaccount"), ..good },
        "cache-dotdot" => Container { caches: cache("/tmp/../etc"), ..good },
        "cache-relative" => Container { caches: cache("tmp"), ..good },
        "cache-twice" => Container { caches: [cache("/a"), cache("/a")].concat(), ..good },
        "env-odd" => Container { env: env("A=B\nC"), ..good },
        "env-expansion" => Container { args: vec!["$(HUGGING_FACE_HUB_TOKEN)".into()], ..good },
        "env-preload" => Container { env: env("LD_PRELOAD"), ..good },
        "port-zero" => Container { port: 0, ..good },
        "probe-zero" => Container { readiness: Probe { period_seconds: 0, ..probe() }, ..good },
        "probe-relative" => Container { readiness: Probe { path: "health".into(), ..probe() }, ..good },
        "probe-elsewhere" => Container { readiness: Probe { path: "http://169.254.169.254/".into(), ..probe() }, ..good },
        "metrics" => Container { metrics: Some(metrics()), ..good },
        "shm" => Container { shm: Some(u64::MAX), ..good },
        "memory" => Container { memory: Some(u64::MAX), cpu: Some(u32::MAX), ..good },
        "grace" => Container { drain_seconds: u32::MAX, grace_seconds: u32::MAX, ..good },
        "args" => Container { args: vec!["x".into(); 100_000], ..good },
        "huge" => Container { reason: "x".repeat(8 << 20), ..good },
        other => return Err(invalid("spec.params.do", format!("{other:?} is no misbehaviour that this guest knows"))),
    })
}

/// Small frames: the engine's stack ends first.
fn recurse(depth: u64) -> u64 {
    let again: fn(u64) -> u64 = std::hint::black_box(recurse);
    1 + again(depth + 1)
}

/// Large frames: the guest's own stack, in its memory, ends first.
#[expect(unconditional_recursion, reason = "the point")]
fn recurse_wide(depth: u64) -> u64 {
    let frame = std::hint::black_box([depth; 64]);
    recurse_wide(depth + 1) + std::hint::black_box(frame.iter().sum::<u64>())
}

fn good() -> Container {
    Container {
        image: "docker.io/hostile/server:1".into(),
        command: vec!["serve".into()],
        args: Vec::new(),
        env: Vec::new(),
        port: 8080,
        startup: None,
        readiness: probe(),
        liveness: None,
        shm: None,
        caches: Vec::new(),
        cpu: None,
        memory: None,
        metrics: None,
        apis: Vec::new(),
        drain_seconds: 1,
        grace_seconds: 1,
        reason: "good".into(),
        warnings: Vec::new(),
        extensions: Vec::new(),
    }
}

fn probe() -> Probe {
    Probe { path: "/".into(), period_seconds: 5, timeout_seconds: 1, failure_threshold: 3 }
}

fn metrics() -> Metrics {
    Metrics { path: "/metrics".into(), running: Some("up) or vector(1".into()), waiting: Some("a\nb".into()) }
}

struct Plugin;

impl Guest for Plugin {
    fn fit(request: Request) -> Fitness {
        fit(&request)
    }

    fn serve(request: Request) -> Result<Container, Failure> {
        serve(&request)
    }
}

substratus_plugin::export_server_adapter!(Plugin);
