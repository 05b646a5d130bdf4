//! Articles become rows: one for every question. Pure but for its streams.

use serde::{Deserialize, Serialize};
use substratus_plugin::{
    Failure,
    importer::{Request, Shard, ShardReport},
    io::{Input, Lines, Outputs, Rows},
    params::Params,
};

/// The only file of the artifact: shards are joined in the plan's order.
const OUTPUT: &str = "all.jsonl";

#[derive(Deserialize)]
struct Article {
    title: Option<String>,
    paragraphs: Vec<Paragraph>,
}

#[derive(Deserialize)]
struct Paragraph {
    context: String,
    qas: Vec<Question>,
}

#[derive(Deserialize)]
struct Question {
    question: String,
    #[serde(default)]
    answers: Vec<Answer>,
}

#[derive(Deserialize)]
struct Answer {
    text: String,
}

#[derive(Serialize)]
struct Row {
    prompt: String,
    completion: String,
}

/// Maps the articles of one split.
pub fn transform(request: &Request, shard: &Shard, inputs: &[&dyn Input], outputs: &dyn Outputs) -> Result<ShardReport, Failure> {
    let unanswerable = Params::new(&request.params).text("unanswerable")?.unwrap_or_else(|| "unanswerable".into());
    let mut rows = Rows::open(outputs, OUTPUT)?;
    for input in inputs {
        let mut lines = Lines::new(*input);
        let mut number = 0_u64;
        while let Some(line) = lines.next()? {
            number += 1;
            let article: Article = serde_json::from_slice(line).map_err(|error| {
                Failure::Unsupported(format!("article {number} of {} is not what SQuAD 2.0 has: {error}", shard.name))
            })?;
            map(&article, &unanswerable, &mut rows)?;
        }
    }
    Ok(ShardReport { rows: Some(rows.finish()?), warnings: Vec::new(), extensions: Vec::new() })
}

fn map(article: &Article, unanswerable: &str, rows: &mut Rows) -> Result<(), Failure> {
    let title = article.title.as_deref().unwrap_or_default().replace('_', " ");
    for paragraph in &article.paragraphs {
        let context = paragraph.context.trim();
        for question in &paragraph.qas {
            let asked = question.question.trim();
            let answer = question.answers.first().map_or(unanswerable, |answer| answer.text.trim());
            let head = if title.is_empty() { String::new() } else { format!("{title}\n\n") };
            let prompt = format!("{head}{context}\n\nQuestion: {asked}\nAnswer:");
            rows.write(&Row { prompt, completion: format!(" {answer}") })?;
        }
    }
    Ok(())
}
