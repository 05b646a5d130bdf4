//! Each fault does what it says, to the request it names, as often as it says.

use std::time::{Duration, Instant};

use http::header::RANGE;
use substratus_tests::hub::{Content, Fault, Hub, Repo, Rule};

use super::{header, http, location, start};

const SIZE: usize = 300_000;
const WEIGHTS: &str = "/acme/m/resolve/main/w.bin";

fn hub() -> Hub {
    start(Hub::builder().repo(Repo::model("acme/m").file("config.json", "{}").file("w.bin", Content::noise(1, 300_000))))
}

/// What arrived, and whether the body ended well.
async fn fetch(url: &str) -> (Vec<u8>, bool) {
    let (mut response, mut got) = (http().get(url).send().await.unwrap(), Vec::new());
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) => got.extend_from_slice(&chunk),
            Ok(None) => return (got, true),
            Err(_) => return (got, false),
        }
    }
}

async fn right(url: &str) -> Vec<u8> {
    let (whole, ended) = fetch(url).await;
    assert!(ended && whole.len() == SIZE);
    whole
}

#[tokio::test]
async fn a_cut_ends_the_connection_at_the_byte_once() {
    let hub = hub();
    let url = location(&hub, WEIGHTS).await;
    hub.fault(Rule::cdn("w.bin", Fault::CutAfter(70_001)).once());
    let (got, ended) = fetch(&url).await;
    assert_eq!((got.len(), ended), (70_001, false));
    assert_eq!(right(&url).await[..70_001], got);
    assert_eq!(hub.stats().cdn.bytes_with("w.bin"), (70_001 + SIZE) as u64);
}

#[tokio::test]
async fn a_stall_sends_no_more_and_keeps_the_connection() {
    let hub = hub();
    let url = location(&hub, WEIGHTS).await;
    hub.fault(Rule::cdn("", Fault::StallAfter(1000)));
    let mut response = http().get(&url).send().await.unwrap();
    assert_eq!(response.chunk().await.unwrap().unwrap().len(), 1000);
    assert!(tokio::time::timeout(Duration::from_millis(500), response.chunk()).await.is_err());
    assert_eq!(hub.stats().cdn.open_connections, 1);
    drop(response);
    hub.clear_faults();
    right(&url).await;
}

#[tokio::test]
async fn slow_is_as_slow_as_told() {
    let hub = hub();
    let url = location(&hub, WEIGHTS).await;
    hub.fault(Rule::cdn("", Fault::BytesPerSecond(300_000)));
    let began = Instant::now();
    right(&url).await;
    let took = began.elapsed();
    assert!(took > Duration::from_millis(900) && took < Duration::from_secs(4), "{took:?}");
}

#[tokio::test]
async fn a_hub_far_away_answers_late() {
    let hub = hub();
    let url = location(&hub, WEIGHTS).await;
    hub.fault(Rule::cdn("", Fault::Latency(200)));
    let began = Instant::now();
    right(&url).await;
    assert!(began.elapsed() >= Duration::from_millis(200), "{:?}", began.elapsed());
    assert!(hub.stats().cdn.requests_with("w.bin") == 1);
}

#[tokio::test]
async fn a_fault_at_a_byte_strikes_who_asks_for_it() {
    let hub = hub();
    let url = location(&hub, WEIGHTS).await;
    hub.fault(Rule::cdn("", Fault::Status(500)).at(100).times(2));
    let status = async |range: &str| http().get(&url).header(RANGE, range).send().await.unwrap().status().as_u16();
    assert_eq!([status("bytes=0-99").await, status("bytes=101-").await, status("bytes=100-100").await], [206, 206, 500]);
    assert_eq!(http().get(&url).send().await.unwrap().status(), 500);
    right(&url).await;
}

#[tokio::test]
async fn wrong_bytes_have_the_right_length_and_etag() {
    let hub = hub();
    let url = location(&hub, WEIGHTS).await;
    let good = right(&url).await;
    hub.fault(Rule::cdn("w.bin", Fault::WrongByte).times(2));
    for _ in 0..2 {
        let bad = right(&url).await;
        assert!(bad[0] == !good[0] && bad[1..] == good[1..]);
    }
    assert!(right(&url).await == good);
}

#[tokio::test]
async fn changed_content_has_another_etag() {
    let hub = hub();
    let url = location(&hub, WEIGHTS).await;
    let (good, before) = (right(&url).await, http().head(&url).send().await.unwrap());
    hub.fault(Rule::cdn("", Fault::ChangedContent));
    let after = http().get(&url).send().await.unwrap();
    assert_ne!(header(&before, "etag"), header(&after, "etag"));
    let changed = after.bytes().await.unwrap();
    assert!(changed.len() == SIZE && changed.iter().zip(&good).all(|(new, old)| new != old));
}

#[tokio::test]
async fn short_and_extra_bodies_are_well_formed() {
    let hub = hub();
    let url = location(&hub, WEIGHTS).await;
    hub.fault(Rule::cdn("", Fault::ShortBody(7)).once());
    let (short, ended) = fetch(&url).await;
    assert_eq!((short.len(), ended), (SIZE - 7, true));
    hub.fault(Rule::cdn("", Fault::ExtraBody(7)).once());
    let (long, ended) = fetch(&url).await;
    assert_eq!((long.len(), ended), (SIZE + 7, true));
    hub.fault(Rule::cdn("", Fault::ExtraBody(7)).once());
    let part = http().get(&url).header(RANGE, "bytes=0-9").send().await.unwrap();
    assert_eq!(header(&part, "content-range"), "bytes 0-9/300000");
    assert_eq!(part.bytes().await.unwrap().len(), 17);
}

#[tokio::test]
async fn statuses_strike_where_and_as_often_as_told() {
    let hub = hub();
    let url = location(&hub, WEIGHTS).await;
    let (info, file) = (format!("{}/api/models/acme/m", hub.url), format!("{}/acme/m/resolve/main/config.json", hub.url));
    hub.fault(Rule::cdn("", Fault::Expired).once());
    hub.fault(Rule::api("", Fault::Status(500)).times(2));
    hub.fault(Rule::resolve("config.json", Fault::NotFound));
    let status = async |url: &str| http().get(url).send().await.unwrap().status().as_u16();
    assert_eq!([status(&url).await, status(&url).await], [403, 200]);
    assert_eq!([status(&info).await, status(&info).await, status(&info).await], [500, 500, 200]);
    let absent = http().get(&file).send().await.unwrap();
    assert_eq!((absent.status().as_u16(), header(&absent, "x-error-code")), (404, "EntryNotFound"));
    location(&hub, WEIGHTS).await;
    hub.clear_faults();
    assert_eq!(status(&file).await, 200);
}

#[tokio::test]
async fn a_rate_limit_says_when_to_come_back() {
    let hub = hub();
    hub.fault(Rule::api("", Fault::TooManyRequests { seconds: 55 }).once());
    let limited = http().get(format!("{}/api/models/acme/m", hub.url)).send().await.unwrap();
    assert_eq!(limited.status(), 429);
    assert_eq!(header(&limited, "ratelimit"), "\"api\";r=0;t=55");
    assert_eq!(header(&limited, "ratelimit-policy"), "\"fixed window\";\"api\";q=500;w=300");
    assert_eq!(header(&limited, "retry-after"), "55");
}

#[tokio::test]
async fn faults_and_counters_are_within_reach_of_another_process() {
    let hub = hub();
    let (faults, stats) = (format!("{}/_hub/faults", hub.url), format!("{}/_hub/stats", hub.url));
    let rule = r#"{"on":"resolve","path":"config","times":1,"fault":{"status":503}}"#;
    assert_eq!(http().post(&faults).body(rule).send().await.unwrap().status(), 204);
    assert_eq!(http().post(&faults).body("{}").send().await.unwrap().status(), 400);
    let url = format!("{}/acme/m/resolve/main/config.json", hub.url);
    assert_eq!(http().get(&url).send().await.unwrap().status(), 503);
    assert_eq!(http().get(&url).send().await.unwrap().status(), 200);
    let seen: substratus_tests::hub::Stats = http().get(&stats).send().await.unwrap().json().await.unwrap();
    assert_eq!(seen.hub.requests["GET /acme/m/resolve/main/config.json"], 2);
    assert_eq!(seen.hub.bytes, 2);
    http().delete(&stats).send().await.unwrap();
    assert!(hub.stats().hub.requests.is_empty());
    assert_eq!(http().delete(&faults).send().await.unwrap().status(), 204);
}
