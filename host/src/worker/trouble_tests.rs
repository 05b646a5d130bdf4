//! Transfers from servers in trouble: down, busy, with URLs that end and with bytes that are wrong.

use std::time::Instant;

use super::*;

const MANY: usize = 20;

impl Case {
    /// A server with a file of many parts that says something else where `instead` wants to.
    async fn troubled(instead: impl Fn(&str, Option<&str>) -> Option<Response> + Send + Sync + 'static) -> Self {
        let calm = Self::new(MANY * usize::try_from(PART).unwrap(), true, true).await;
        Self::of(Server { instead: Some(Arc::new(instead)), ..calm.server }).await
    }
}

fn refusal(status: u16, headers: &[(&str, &str)]) -> Response {
    let response =
        headers.iter().fold(Response::builder().status(status), |response, (name, value)| response.header(*name, *value));
    response.body(Body::empty()).unwrap()
}

/// The first request is answered, so many after it are not.
fn down_for(requests: usize) -> impl Fn(&str, Option<&str>) -> Option<Response> + Send + Sync + 'static {
    let seen = AtomicUsize::new(0);
    move |_, _| {
        let number = seen.fetch_add(1, Ordering::SeqCst);
        (1..=requests).contains(&number).then(|| refusal(502, &[]))
    }
}

#[tokio::test]
async fn a_source_that_answered_before_is_waited_for() {
    let mut case = Case::troubled(down_for(200)).await;
    case.tuning.attempts = 2;
    assert!(case.succeeds().await.len() > 200, "it was asked as long as it was down");
    let mut case = Case::troubled(down_for(usize::MAX - 1)).await;
    (case.tuning.attempts, case.tuning.outage) = (2, Duration::from_millis(100));
    let error = case.run_with(Some(case.server.content.len() as u64)).await.unwrap_err();
    assert_eq!((error.reason, error.message.contains("502")), (reason::UNAVAILABLE, true), "{error}");
}

#[tokio::test]
async fn a_source_that_never_answered_is_given_up() {
    let mut case = Case::troubled(|_, _| Some(refusal(502, &[]))).await;
    case.tuning.attempts = 3;
    let error = case.run_with(Some(case.server.content.len() as u64)).await.unwrap_err();
    assert_eq!(error.reason, reason::UNAVAILABLE);
    assert_eq!(case.server.requests.lock().unwrap().len(), 3);
}

/// When requests came, and whether any came while the server had asked to be left alone.
async fn left_alone(answer: fn() -> Response, whole: bool) {
    let times: Arc<Mutex<Vec<Instant>>> = Arc::default();
    let (seen, content) = (Arc::clone(&times), vec![0_u8; MANY * usize::try_from(PART).unwrap()]);
    let case = Case::troubled(move |_, range| {
        let mut times = seen.lock().unwrap();
        times.push(Instant::now());
        if times.len() != 4 {
            return None;
        }
        let answer = answer();
        if !whole {
            return Some(answer);
        }
        // Bytes as they should be, by a server that has given the last answer of its window.
        let (start, last) = range?.strip_prefix("bytes=")?.split_once('-')?;
        let (start, last): (usize, usize) = (start.parse().ok()?, last.parse().ok()?);
        let body = (start..=last).map(|at| u8::try_from((at * 7 + at / 251) % 256).unwrap()).collect::<Vec<_>>();
        let said = format!("bytes {start}-{last}/{}", content.len());
        let mut response = (StatusCode::PARTIAL_CONTENT, [(header::CONTENT_RANGE, said)], body).into_response();
        response.headers_mut().extend(answer.headers().clone());
        Some(response)
    })
    .await;
    case.succeeds().await;
    let times = times.lock().unwrap();
    let after = |time: &Instant| time.saturating_duration_since(times[3]);
    // Those that were on their way already come at once.
    let between = times.iter().map(after).filter(|after| (200..950).contains(&after.as_millis())).count();
    assert_eq!(between, 0, "{:?}", times.iter().map(after).collect::<Vec<_>>());
    assert!(times.iter().any(|time| after(time).as_millis() >= 950), "nothing was left to ask for");
}

#[tokio::test]
async fn one_refusal_keeps_every_connection_away() {
    left_alone(|| refusal(429, &[("retry-after", "1")]), false).await;
    left_alone(|| refusal(503, &[("retry-after", "1")]), false).await;
    left_alone(|| refusal(429, &[("ratelimit", "\"a\";r=0;t=1")]), false).await;
}

#[tokio::test]
async fn the_last_answer_of_a_window_keeps_every_connection_away() {
    left_alone(|| refusal(206, &[("ratelimit", "\"a\";r=0"), ("ratelimit-policy", "\"a\";q=9;w=1")]), true).await;
}

/// Redirects `/file` to a URL that works for so many seconds.
async fn signed_for(seconds: i64) -> (usize, usize) {
    let case = Case::troubled(move |path, _| {
        let ends = jiff::Timestamp::now().as_second() + seconds;
        (path == "/file").then(|| refusal(302, &[("location", &format!("/signed?Expires={ends}&Signature=x"))]))
    })
    .await;
    let requests = case.succeeds().await;
    let of = |path: &str| requests.iter().filter(|request| request.starts_with(path)).count();
    (of("/file"), of("/signed"))
}

#[tokio::test]
async fn a_signed_url_is_renewed_before_a_range_would_outlive_it() {
    let (asked, served) = signed_for(3600).await;
    assert!(asked < 10 && served == MANY, "{asked} {served}");
    let (asked, served) = signed_for(20).await;
    assert_eq!((asked, served), (MANY, MANY), "a range may take half a minute");
}

#[tokio::test]
async fn a_byte_that_came_wrong_once_costs_its_range_only() {
    let part = usize::try_from(PART).unwrap();
    for (at, most) in [(0, 1), (part + 5, 3), (3 * part, 7), (MANY * part - 1, MANY)] {
        let case = Case::new(MANY * part, true, true).await;
        *case.server.spoilt.lock().unwrap() = Some((at, 1));
        let again = case.succeeds().await.len() - MANY;
        assert!((1..=most).contains(&again), "byte {at}: {again} ranges came again");
    }
    for (ranges, length) in [(true, true), (false, true), (false, false)] {
        let case = Case::new(part, ranges, length).await;
        *case.server.spoilt.lock().unwrap() = Some((9, 1));
        assert_eq!(case.succeeds().await.len(), 2);
    }
    let case = Case::new(MANY * part, false, true).await;
    *case.server.spoilt.lock().unwrap() = Some((5 * part, 1));
    case.succeeds().await;
}

#[tokio::test]
async fn a_byte_that_is_always_wrong_fails_the_load_and_leaves_nothing() {
    let case = Case::new(500_000, true, true).await;
    *case.server.spoilt.lock().unwrap() = Some((70_000, usize::MAX));
    let error = case.run_with(Some(500_000)).await.unwrap_err();
    assert_eq!((error.reason, error.message.contains("`d/f`")), (reason::DIGEST_MISMATCH, true), "{error}");
    let left = std::fs::read_dir(case.folder.path().join("artifacts/d")).unwrap().count();
    assert_eq!(left, 0);
}
