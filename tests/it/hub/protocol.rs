//! What the protocol's page says, header by header.

use std::{net::Ipv4Addr, path::PathBuf, process::Command, time::Duration};

use http::header::{AUTHORIZATION, IF_RANGE, RANGE};
use serde_json::Value;
use substratus_tests::{
    cluster::netns,
    hub::{Content, Fault, Hub, Kind, Repo, Rule},
};
use tokio::runtime::Handle;

use super::{header, http, location, start};

const WEIGHTS: &str = "/acme/m/resolve/main/w.bin";

fn two_files() -> Repo {
    Repo::model("acme/m").file("config.json", "0123456789").file("w.bin", Content::noise(1, 100_000))
}

#[tokio::test]
async fn small_files_come_straight_and_large_ones_by_a_signed_url() {
    let hub = start(Hub::builder().repo(two_files()));
    let small = http().get(format!("{}/acme/m/resolve/main/config.json", hub.url)).send().await.unwrap();
    assert_eq!(small.status(), 200);
    // `printf 0123456789 | git hash-object --stdin`
    assert_eq!(header(&small, "etag"), "\"ad471007bd7f5983d273b9584e5629230150fd54\"");
    assert_eq!(header(&small, "accept-ranges"), "bytes");
    assert_eq!(header(&small, "x-repo-commit"), hub.commit(Kind::Model, "acme/m", "main").unwrap());
    assert_eq!(small.text().await.unwrap(), "0123456789");

    let large = http().head(format!("{}/acme/m/resolve/main/w.bin", hub.url)).send().await.unwrap();
    let sha256 = Content::noise(1, 100_000).sha256().unwrap();
    assert_eq!(large.status(), 302);
    assert_eq!(header(&large, "x-linked-etag"), format!("\"{sha256}\""));
    assert_eq!(header(&large, "x-linked-size"), "100000");
    let url = header(&large, "location").to_owned();
    assert!(url.starts_with(&hub.cdn_url) && !url.starts_with(&hub.url), "{url}");
    let body = http().get(&url).send().await.unwrap().bytes().await.unwrap();
    assert_eq!(Content::from(body.to_vec()).sha256().unwrap(), sha256);
    assert_eq!(http().get(url.replace("Signature=", "Signature=0")).send().await.unwrap().status(), 403);
}

#[tokio::test]
async fn both_hosts_serve_ranges() {
    let hub = start(Hub::builder().repo(two_files()));
    let (small, large) = (format!("{}/acme/m/resolve/main/config.json", hub.url), location(&hub, WEIGHTS).await);
    for (url, size) in [(&small, 10), (&large, 100_000)] {
        let part = http().get(url).header(RANGE, "bytes=2-4").send().await.unwrap();
        assert_eq!((part.status().as_u16(), header(&part, "content-range")), (206, &*format!("bytes 2-4/{size}")));
        let etag = header(&part, "etag").to_owned();
        assert_eq!(part.bytes().await.unwrap().len(), 3);
        let suffix = http().get(url).header(RANGE, "bytes=-3").header(IF_RANGE, &etag).send().await.unwrap();
        assert_eq!(header(&suffix, "content-range"), format!("bytes {}-{}/{size}", size - 3, size - 1));
        let changed = http().get(url).header(RANGE, "bytes=2-4").header(IF_RANGE, "\"x\"").send().await.unwrap();
        assert_eq!((changed.status().as_u16(), header(&changed, "content-length")), (200, &*size.to_string()));
        let beyond = http().get(url).header(RANGE, format!("bytes={size}-")).send().await.unwrap();
        assert_eq!((beyond.status().as_u16(), header(&beyond, "content-range")), (416, &*format!("bytes */{size}")));
    }
}

#[tokio::test]
async fn pages_are_linked_until_the_last() {
    let repo = (0..5).fold(Repo::model("acme/m"), |repo, n| repo.file(&format!("{n}.txt"), n.to_string()));
    let hub = start(Hub::builder().page_size(2).repo(repo));
    let (mut url, mut sizes) = (Some(format!("{}/api/models/acme/m/tree/main?recursive=true", hub.url)), Vec::new());
    while let Some(page) = url.take() {
        let response = http().get(page).send().await.unwrap();
        let link = header(&response, "link").to_owned();
        url = link.strip_prefix('<').and_then(|link| link.strip_suffix(">; rel=\"next\"")).map(str::to_owned);
        assert!(url.as_ref().is_none_or(|url| url.contains("recursive=true") && url.contains("cursor=")), "{link}");
        sizes.push(response.json::<Vec<Value>>().await.unwrap().len());
    }
    assert_eq!(sizes, [2, 2, 1]);
}

#[tokio::test]
async fn the_cdn_refuses_and_counts_a_leaked_token() {
    let hub = start(Hub::builder().token("hf_x").repo(two_files()));
    let url = location(&hub, WEIGHTS).await;
    let leaked = http().get(&url).header(AUTHORIZATION, "Bearer hf_x").send().await.unwrap();
    assert_eq!(leaked.status(), 400);
    assert_eq!(hub.stats().cdn.authorization_headers, 1);
    assert_eq!(hub.stats().cdn.bytes, 0);
}

#[tokio::test]
async fn a_token_nobody_issued_is_refused() {
    let hub = start(Hub::builder().token("hf_x").repo(two_files()));
    let url = format!("{}/api/models/acme/m", hub.url);
    let refused = http().get(&url).header(AUTHORIZATION, "Bearer hf_y").send().await.unwrap();
    assert_eq!(refused.status(), 401);
    assert_eq!(header(&refused, "x-error-message"), "Invalid credentials in Authorization header");
    assert_eq!(http().get(&url).header(AUTHORIZATION, "Bearer hf_x").send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_renamed_repository_redirects_relatively() {
    let hub = start(Hub::builder().repo(two_files().renamed_from("old/m")));
    let moved = http().get(format!("{}/old/m/resolve/main/config.json?x=1", hub.url)).send().await.unwrap();
    assert_eq!((moved.status().as_u16(), header(&moved, "location")), (307, "/acme/m/resolve/main/config.json?x=1"));
}

#[tokio::test]
async fn signed_urls_run_out_and_old_commits_stay() {
    let hub = start(Hub::builder().url_ttl(Duration::from_secs(1)).repo(two_files()));
    let (url, first) = (location(&hub, WEIGHTS).await, hub.commit(Kind::Model, "acme/m", "main").unwrap());
    hub.put(Repo::model("acme/m").file("w.bin", Content::noise(2, 100))).unwrap();
    assert_ne!(hub.commit(Kind::Model, "acme/m", "main").unwrap(), first);
    assert_eq!(http().head(&url).send().await.unwrap().status(), 200);
    let old = http().head(format!("{}/acme/m/resolve/{first}/w.bin", hub.url)).send().await.unwrap();
    assert_eq!(header(&old, "x-linked-size"), "100000");
    tokio::time::sleep(Duration::from_millis(2100)).await;
    assert_eq!(http().head(&url).send().await.unwrap().status(), 403);
}

#[tokio::test]
async fn dropping_the_hub_breaks_open_connections() {
    let hub = start(Hub::builder().repo(two_files()));
    hub.fault(Rule::cdn("", Fault::StallAfter(10)));
    let mut hanging = http().get(location(&hub, WEIGHTS).await).send().await.unwrap();
    assert_eq!(hanging.chunk().await.unwrap().unwrap().len(), 10);
    drop(hub);
    assert!(!hanging.chunk().await.unwrap_err().is_timeout());
}

/// Needs root.
#[tokio::test]
async fn a_hub_is_within_the_network_namespace_of_the_thread_that_started_it() {
    let name = format!("substratus-hub-{}", std::process::id());
    netns::create(&name).unwrap();
    let (path, runtime) = (PathBuf::from("/run/netns").join(&name), Handle::current());
    let inside = move || {
        netns::enter(&path).unwrap();
        let hub = Hub::builder().repo(two_files()).start(Ipv4Addr::LOCALHOST.into(), &runtime).unwrap();
        let url = format!("{}/acme/m/resolve/main/config.json", hub.url);
        let output = Command::new("curl").args(["-sf", "--max-time", "5", &url]).output().unwrap();
        (hub, url, output.stdout)
    };
    let (hub, url, body) = tokio::task::spawn_blocking(|| std::thread::spawn(inside).join()).await.unwrap().unwrap();
    assert_eq!(body, b"0123456789");
    assert!(http().get(&url).send().await.unwrap_err().is_connect());
    drop(hub);
    netns::delete(&name).unwrap();
}
