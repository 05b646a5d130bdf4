//! The local model hub: that the real client takes it for one, and that its faults do what they say.
//! Must not test Substratus; what the hub is trusted for is settled here.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod client;
mod faults;
mod protocol;

use std::{net::Ipv4Addr, time::Duration};

use reqwest::{Client, Response, redirect::Policy};
use substratus_tests::hub::{Builder, Hub};
use tokio::runtime::Handle;

/// Starts on loopback.
fn start(builder: Builder) -> Hub {
    builder.start(Ipv4Addr::LOCALHOST.into(), &Handle::current()).unwrap()
}

/// A client that follows nothing and gives up soon.
fn http() -> Client {
    Client::builder().no_proxy().redirect(Policy::none()).timeout(Duration::from_secs(5)).build().unwrap()
}

fn header<'a>(response: &'a Response, name: &str) -> &'a str {
    response.headers().get(name).map_or("", |value| value.to_str().unwrap())
}

/// Where `resolve` sends a client for a large file.
async fn location(hub: &Hub, path: &str) -> String {
    let response = http().get(format!("{}{path}", hub.url)).send().await.unwrap();
    assert_eq!(response.status(), 302, "{path}");
    header(&response, "location").to_owned()
}
