//! An operator that is killed in the middle of its work, again and again: the next one ends where an undisturbed one would, and
//! no Job was ever made twice.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use substratus_tests::cluster::eventually;
use substratus_tests::operator::{ADMIN, Operator};

use super::{LIMIT, Turn, alone, condition};

const MODELS: usize = 12;
/// After its start, in milliseconds: from before the first list to the middle of the work and behind it.
const MOMENTS: [u64; 9] = [40, 90, 140, 190, 260, 340, 450, 700, 1200];

async fn objects(turn: &Turn) -> Result<()> {
    turn.adopted("ready").await?;
    for n in 0..MODELS {
        let spec = match n % 3 {
            0 => json!({"image": "example.com/trainer:1", "params": {"epochs": 1}}),
            1 => json!({"source": "hf://acme/some", "resources": {"gpu": {"type": "nvidia-l4", "count": 1}}}),
            _ => json!({"source": "nope://acme/some"}),
        };
        turn.create("Model", &format!("m{n}"), spec).await?;
        turn.create("Server", &format!("s{n}"), json!({"image": "example.com/server:1", "model": {"name": "ready"}})).await?;
    }
    Ok(())
}

/// Every object that is there now, by kind and name: its uid.
async fn children(turn: &Turn) -> Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    for kind in ["Job", "Deployment", "Service", "ConfigMap", "ServiceAccount"] {
        for object in turn.list(kind).await? {
            found.insert(format!("{kind}/{}", object.metadata.name.unwrap_or_default()), object.metadata.uid.unwrap_or_default());
        }
    }
    Ok(found)
}

/// What the statuses say, without times and names of namespaces.
async fn answers(turn: &Turn) -> Result<BTreeMap<String, Value>> {
    let mut found = BTreeMap::new();
    for (kind, about) in [("Model", "Complete"), ("Server", "Serving")] {
        for object in turn.list(kind).await? {
            let object = serde_json::to_value(object)?;
            let said = condition(&object, about);
            let url = object["status"]["artifacts"]["url"].as_str().unwrap_or_default();
            let generation = url.rsplit('/').next().unwrap_or_default().starts_with('g');
            let answer = json!({"reason": said["reason"], "again": generation, "ready": object["status"]["ready"],
                "planned": object["status"]["plan"]["inputs"], "placement": object["status"]["placement"]});
            found.insert(format!("{kind}/{}", object["metadata"]["name"].as_str().unwrap_or_default()), answer);
        }
    }
    Ok(found)
}

/// Waits until every object has an answer and nothing moves any more.
async fn settled(turn: &Turn) -> Result<(BTreeMap<String, String>, BTreeMap<String, Value>)> {
    eventually("the operator to come to rest", LIMIT, async || {
        let before = (children(turn).await?, answers(turn).await?);
        ensure!(before.1.values().all(|answer| answer["planned"].is_string() || answer["reason"].is_string()), "no answer yet");
        tokio::time::sleep(Duration::from_secs(1)).await;
        Ok((before == (children(turn).await?, answers(turn).await?)).then_some(before))
    })
    .await
}

#[test]
fn a_killed_operator_is_taken_up_where_it_was() -> Result<()> {
    alone(async |turn: &Turn| {
        objects(turn).await?;
        let scope = format!("--watch-namespace={}", turn.namespace);
        let (mut seen, mut home) = (BTreeMap::<String, String>::new(), tempfile::tempdir()?);
        for moment in MOMENTS {
            let operator = Operator::spawn(turn.cluster, home, ADMIN, &[&scope]).await?;
            tokio::time::sleep(Duration::from_millis(moment)).await;
            home = operator.kill()?;
            for (name, uid) in children(turn).await? {
                let first = seen.entry(name.clone()).or_insert_with(|| uid.clone());
                ensure!(*first == uid, "{name} was made twice");
            }
        }
        let operator = Operator::spawn(turn.cluster, home, ADMIN, &[&scope]).await?;
        operator.ready().await?;
        let (after, said) = settled(turn).await?;
        for (name, uid) in &seen {
            ensure!(after.get(name) == Some(uid), "{name} was lost or made twice");
        }
        turn.calm(&operator, 0).await?;
        operator.stop().await?;

        // The same objects in a namespace where nobody was killed.
        let twin = Turn { namespace: turn.cluster.namespace("twin").await?, cluster: turn.cluster, _alone: None };
        objects(&twin).await?;
        let operator = twin.operator(&[]).await?;
        let (undisturbed, expected) = settled(&twin).await?;
        let names = |children: &BTreeMap<String, String>| children.keys().cloned().collect::<Vec<_>>();
        ensure!(names(&after) == names(&undisturbed), "{after:?}\nis not\n{undisturbed:?}");
        ensure!(said == expected, "{said:?}\nis not\n{expected:?}");
        ensure!(names(&after).iter().filter(|name| name.starts_with("Job/")).count() == MODELS / 3 * 2, "{after:?}");
        operator.stop().await.map(drop).context("stop the twin's operator")
    })
}
