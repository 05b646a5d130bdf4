"""A plain importer, as one writes it in Python: fetches a file of a data set and writes its rows as JSON Lines.

rows.py make FOLDER ROWS      writes rows.jsonl and rows.parquet, the same rows in both, and squad.json
rows.py json URL OUT          the standard library: a line, a dict, a line
rows.py pyarrow URL OUT       pyarrow reads, batches become dicts
rows.py datasets URL OUT      Hugging Face's `datasets`, with nothing in its cache
rows.py squad URL OUT         SQuAD 2.0 to prompt and completion
"""

import json
import os
import random
import shutil
import sys
import tempfile
import urllib.request

BATCH = 10_000


def fetch(url):
    """Onto the disk first, as the others do."""
    path = os.path.join(tempfile.mkdtemp(), url.rsplit("/", 1)[1])
    with urllib.request.urlopen(url) as answer, open(path, "wb") as file:
        shutil.copyfileobj(answer, file, 1 << 20)
    return path


def make(folder, count):
    import pyarrow as pa
    import pyarrow.parquet as pq

    random.seed(7)
    words = ["".join(random.choices("abcdefghijklmnopqrstuvwxyzäö", k=random.randint(2, 9))) for _ in range(5000)]
    text = lambda n: " ".join(random.choices(words, k=n))
    schema = pa.schema([("id", pa.int64()), ("prompt", pa.string()), ("completion", pa.string()), ("score", pa.float64())])
    with open(f"{folder}/rows.jsonl", "w") as lines, pq.ParquetWriter(f"{folder}/rows.parquet", schema) as table:
        for start in range(0, count, BATCH):
            rows = [
                {"id": n, "prompt": text(20), "completion": text(30), "score": random.random()}
                for n in range(start, min(start + BATCH, count))
            ]
            lines.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            table.write_table(pa.Table.from_pylist(rows, schema))
    articles = []
    for n in range(count // 100):
        questions = lambda: [
            {"question": text(10), "id": str(q), "answers": [{"text": text(3), "answer_start": 0}]} for q in range(10)
        ]
        paragraphs = [{"context": text(100), "qas": questions()} for _ in range(10)]
        articles.append({"title": f"T{n}", "paragraphs": paragraphs})
    for split in ("train", "dev"):
        with open(f"{folder}/{split}-v2.0.json", "w") as file:
            json.dump({"version": "v2.0", "data": articles}, file, ensure_ascii=False)


def with_json(path, out):
    with open(path) as lines, open(out, "w") as to:
        for line in lines:
            to.write(json.dumps(json.loads(line), ensure_ascii=False) + "\n")


def with_pyarrow(path, out):
    import pyarrow.json as pj
    import pyarrow.parquet as pq

    if path.endswith(".parquet"):
        batches = pq.ParquetFile(path).iter_batches(BATCH)
    else:
        batches = pj.open_json(path)
    with open(out, "w") as to:
        for batch in batches:
            to.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in batch.to_pylist())


def with_datasets(path, out):
    import datasets

    datasets.disable_progress_bars()
    kind = "parquet" if path.endswith(".parquet") else "json"
    cache = os.path.join(os.path.dirname(path), "cache")
    rows = datasets.load_dataset(kind, data_files=path, split="train", cache_dir=cache)
    rows.to_json(out, force_ascii=False)


def squad(path, out):
    with open(path) as file, open(out, "w") as to:
        for article in json.load(file)["data"]:
            title = article["title"].replace("_", " ")
            for paragraph in article["paragraphs"]:
                context = paragraph["context"].strip()
                for qa in paragraph["qas"]:
                    answer = qa["answers"][0]["text"].strip() if qa["answers"] else "unanswerable"
                    prompt = f"{title}\n\n{context}\n\nQuestion: {qa['question'].strip()}\nAnswer:"
                    to.write(json.dumps({"prompt": prompt, "completion": f" {answer}"}, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    how, what, last = sys.argv[1:]
    if how == "make":
        make(what, int(last))
    else:
        path = fetch(what)
        {"json": with_json, "pyarrow": with_pyarrow, "datasets": with_datasets, "squad": squad}[how](path, last)
        shutil.rmtree(os.path.dirname(path))
